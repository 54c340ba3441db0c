package demo

// The lists that orders are drawn from. Invisible characters, and those that change how the text around them is shown,
// are written as escapes.

var percentCodes = []Discount{
	{Code: "WELCOME10", Kind: DiscountPercent, BasisPoints: 1_000},
	{Code: "FRÜHLING-15", Kind: DiscountPercent, BasisPoints: 1_500},
	{Code: "vip 12.5%", Kind: DiscountPercent, BasisPoints: 1_250},
	{Code: "7,5_FÜR_DICH", Kind: DiscountPercent, BasisPoints: 750},
	{Code: "ONE/THIRD", Kind: DiscountPercent, BasisPoints: 3_333},
}

// The amounts here are euro cents.
var amountCodes = []Discount{
	{Code: "SORRY-5", Kind: DiscountAmount, Amount: 500},
	{Code: "GIFT&CARD", Kind: DiscountAmount, Amount: 2_500},
	{Code: "ÉTÉ'26", Kind: DiscountAmount, Amount: 1_000},
	{Code: "0100", Kind: DiscountAmount, Amount: 10_000},
}

var articles = []struct {
	sku, title string
	euroCents  int64
}{
	{"TEA-0001", "Darjeeling First Flush, 100 g", 1490},
	{"TEA-0002", "Assam TGFOP, 250 g", 1295},
	{"TEA-0003", "Earl Grey “Blue Flower”", 890},
	{"TEA-0004", "Ostfriesenmischung, kräftig", 749},
	{"TEA-0005", "宇治抹茶 (Uji matcha), 30 g", 2480},
	{"TEA-0006", "龙井 Longjing, spring harvest", 3275},
	{"TEA-0007", "كركديه Hibiscus, loose", 515},
	{"TEA-0008", "Masala chai मसाला चाय", 645},
	{"TEA-0009", "Rooibos & Vanille <Bio>", 599},
	{"TEA-0010", "Pu'er brick 2014, 357 g", 5890},
	{"COF-100", "Café crème, 1 kg", 1899},
	{"COF-101", "Espresso “Nº 7”", 949},
	{"COF-102", "Decaf (97½ % free)", 1049},
	{"COF-103", "Türk kahvesi, çok ince", 725},
	{"MUG/330-BL", "Mug 330 ml, blue", 1150},
	{"MUG/330-RD", "Mug 330 ml, red", 1150},
	{"MUG/500", "Mug ½ l \"Big One\"", 1675},
	{"POT-07", "Teapot 0.7 l, cast iron 鉄瓶", 8900},
	{"POT-12", "Teapot 1.2 l; glass, with strainer", 3995},
	{"0001234", "Tea strainer", 395},
	{"0001235", "Tea strainer, fine (Ø 65 mm)", 455},
	{"12E5", "Paper filters, 100 pcs", 285},
	{"KIT-Ä-7", "Geschenkset „Ännchen“", 4250},
	{"KIT-2", "Gift set 2×100 g", 2699},
	{"SPOON\\L", "Measuring spoon, L\\R handed", 335},
	{"SAMPLE", "Free sample 🎁", 0},
	{"SCALE 0.1", "Scale, ±0.1 g", 2949},
	{"KTL-1500", "Kettle 1500 W, 40–100 °C", 7495},
	{"BOOK-9783", "The Book of Tea / 茶の本", 1600},
	{"BOOK-9784", "L'heure du thé : recettes d'été", 2190},
	{"BOX-A5", "Storage tin, 10\" × 4\"", 979},
	{"HON-250", "Honung från Öland 🐝, 250 g", 825},
	{"SUG-1", "Kandis; brown sugar, 100% cane", 345},
	{"COOK-12", "Shortbread, 12 pcs\t(new!)", 575},
	{"COOK-24", "Ma'amoul معمول, 24 pcs", 1385},
	{"MACHINE-9", "Espresso machine, two groups", 249900},
	{"GRIND-3", "Grinder “Żółw”, burrs Ø 58 mm", 41950},
	{"TOWEL", "Tea towel, O'Neill's linen", 1225},
	{"STICKER", "Sticker \"I ♥ tea\"", 99},
	{"VOUCHER-25", "Voucher, printed", 2500},
}

// The domains are reserved (RFC 2606): nobody can own them.
var emails = []string{
	"tea.lover.%d@example.com", "nightowl+shop%d@example.org", "M.%d@mail.example", "info%d@bücher.example",
	"o'clock-%d@example.ie.example", "%d@example.net", "post%d@例え.example", "KUNDE_%d@EXAMPLE.COM",
	"почта%d@пример.example", "\"two words %d\"@example.com", "a%d@a.very.long.chain.of.sub.domains.example.org",
}

// A market is a country that the shop sells to.
type market struct {
	country, currency string
	buyers            int // in addition to those in oddNames; fewer than the names below allow
	nameForm          string
	given, family     string
	streets           string
	places            string // postal code|city|region
}

const familyFirst = "%[2]s %[1]s"

var markets = []market{
	{"DE", "EUR", 17, "%s %s", "Jürgen,Anna,Käthe,Björn,Zoë,Max", "Müller,Groß,Schäfer,von der Weiße,Yılmaz,Schmidt-Öhl",
		"Hauptstraße %d;Am Köppchen %da;Straße des 17. Juni %d;Q%d, 14", "10115|Berlin|;01067|Dresden|;80331|München|;68161|Mannheim|"},
	{"FR", "EUR", 12, "%s %s", "François,Zoé,Anaïs,Loïc,Maëlle", "D’Aubigné,Lefèvre,L'Hôpital,Œuvrard,de la Tour",
		"%d, rue de l'Église;%d bis, bd Saint-Michel;%d, allée des Chênes", "75005|Paris|;13001|Marseille|;97400|Saint-Denis|La Réunion;35000|Rennes|"},
	{"ES", "EUR", 9, "%s %s", "José,María José,Íñigo,Begoña", "Núñez,García y Vega,Muñoz de la Peña,Agüero",
		"C/ Mayor, %d, 3.º izda.;Av. de América %d;Pl. d'Espanya, %d", "28013|Madrid|;08002|Barcelona|;35001|Las Palmas|Gran Canaria"},
	{"IT", "EUR", 8, "%s %s", "Niccolò,Giosuè,Chiara,Gioia", "D'Angelo,Dell'Acqua,Rossi,Cantù", "Via dell'Orso %d;Cannaregio %d/B", "20121|Milano|MI;30121|Venezia|VE"},
	{"NL", "EUR", 7, "%s %s", "Daniël,Noa,Ruben", "van 't Hof,'t Hooft,de Vries,IJsbrand", "Prinsengracht %d-hs;'s-Gravelandseweg %d", "1015 DK|Amsterdam|;5211 AB|'s-Hertogenbosch|"},
	{"IE", "EUR", 5, "%s %s", "Siobhán,Seán,Róisín", "O'Brien,Ó Súilleabháin,McCarthy", "%d St. Stephen's Green;The Old Mill, Lot %d", "D02 X285|Dublin 2|;|Ballydehob|Co. Cork"},
	{"FI", "EUR", 4, "%s %s", "Väinö,Aino,Åke", "Hämäläinen,Äijälä,Öhman", "Hämeentie %d A 12;Länsiväylä %d", "00530|Helsinki|;33100|Tampere|"},
	{"GR", "EUR", 5, "%s %s", "Γιώργος,Ελένη,Οδυσσέας", "Παπαδόπουλος,Νικολαΐδης,Καζαντζάκη", "Οδός Ερμού %d;Λεωφ. Συγγρού %d", "105 63|Αθήνα|;546 24|Θεσσαλονίκη|"},
	{"PL", "EUR", 4, "%s %s", "Łukasz,Małgorzata,Żaneta", "Wójcik,Dąbrowska,Źrebiec", "ul. Święty Marcin %d/4;al. Jerozolimskie %d", "61-806|Poznań|;00-001|Warszawa|"},
	{"TR", "EUR", 3, "%s %s", "İbrahim,Işıl,Çağla", "Yıldırım,Öztürk,Şahin", "İstiklal Cad. No:%d D:5", "34433|İstanbul|Beyoğlu"},
	{"UA", "EUR", 3, "%s %s", "Олексій,Мар'яна,Їжак", "Шевченко,Лук'яненко,Ґудзь", "вул. Хрещатик, %d, кв. 7", "01001|Київ|;79000|Львів|"},
	{"GB", "GBP", 19, "%s %s", "Nigel,Fiona,Rhŷs,Aoife,Ngozi", "Smith-Jones,O'Hara,MacLeod,Featherstonehaugh,Li", "%d Acacia Avenue;Flat %d, St James's Court;%dB Baker St.", "W1A 1AA|London|;CF10 1EP|Caerdydd / Cardiff|;EH1 1YZ|Edinburgh|Midlothian"},
	{"US", "USD", 19, "%s %s", "Jack,Renée,DeShawn,Mary-Lou,Xochitl", "O'Connor,Smith Jr.,Nuñez,St. John,Kim", "%d Main St.;PO Box %d;%d½ W 3rd Ave #4;%d Dr. M.L. King Jr. Blvd.",
		"10001|New York|NY;96813|Honolulu|HI;83843-2301|Moscow|ID;02134|Allston|MA"},
	{"IN", "USD", 5, "%s %s", "प्रिया,अमित,Lakshmi", "शर्मा,वर्मा,Subramaniam", "%d, M.G. Road, Opp. \"Big Bazaar\";प्लॉट नं. %d", "560001|Bengaluru|Karnataka;110001|नई दिल्ली|"},
	{"CN", "USD", 4, familyFirst, "伟,秀英,子涵", "王,欧阳,李", "人民路%d号3栋", "200000|上海市|黄浦区;100000|北京市|"},
	{"KR", "USD", 4, familyFirst, "민준,서연,지우", "김,이,박", "세종대로 %d길 110", "04524|서울특별시|중구;48058|부산광역시|"},
	{"IL", "USD", 4, "%s %s", "נועה,דוד,ז׳קלין", "כהן,לוי,בן־דוד", "רחוב הרצל %d;שד׳ רוטשילד %d", "6688101|תל אביב-יפו|;9414001|ירושלים|"},
	{"VN", "USD", 3, familyFirst, "Thị Minh Khai,Văn Đức,Ngọc Ánh", "Nguyễn,Trần,Đặng", "%d Đường Điện Biên Phủ, P. 25", "700000|TP. Hồ Chí Minh|"},
	{"TH", "USD", 3, "%s %s", "สมชาย,กนกวรรณ,ปิยะ", "ศรีสุข,วงศ์สวัสดิ์,ใจดี", "%d ถนนสุขุมวิท", "10110|กรุงเทพมหานคร|"},
	{"CH", "CHF", 12, "%s %s", "Urs,Régula,Gian-Andrea,Noël", "Zürcher,Bösch,Della Chiesa,L'Eplattenier", "Bahnhofstrasse %d;Ch. de la Forêt %d;Via alla Chiesa %d", "8001|Zürich|ZH;1204|Genève|GE;6900|Lugano|TI"},
	{"SE", "SEK", 10, "%s %s", "Åsa,Örjan,Linnéa,Göran", "Ågren,Sjöström,af Klint,Öberg", "Drottninggatan %d, 2 tr;Södra vägen %d", "111 51|Stockholm|;413 01|Göteborg|"},
	{"JP", "JPY", 14, familyFirst, "太郎,花子,さくら,ケン,凛", "山田,佐々木,髙橋,渡邊", "千代田1丁目%d番1号;丸の内%d-2 ハイツ101", "〒100-0001|千代田区|東京都;〒600-8216|京都市|京都府"},
	{"KW", "KWD", 9, "%s %s", "فاطمة,عبد الله,نورة,Yousef", "الصباح,العنزي,Al-Mutairi", "Block 3, Street %d, House 12;قطعة ٤، شارع %d", "|Salmiya|Hawalli;|مدينة الكويت|"},
}

// oddNames are customers found in every old shop's database and its bug
// reports, with the country they live in.
var oddNames = []string{
	"US:Jennifer Null", "US:John \"Jack\" O'Neil III", "US:X Æ A-Xii", "DE:<b>Groß</b> & Söhne GmbH", "DE:  Anna  Leerzeichen ",
	"GB:Robert'); DROP TABLE customers;--", "GB:🦄 Unicorn Traders Ltd. 🌈", "GB:Å", "IE:undefined",
	"ES:Jose\u0301 Garci\u0301a", "ES:José García", // the same name, composed differently
	"ES:María del Pilar Fitz-James Stuart y Fernández de Híjar Álvarez de Toledo Portocarrero Silva y Palafox Núñez de Balboa",
	"NL:Zoë \U0001F469\U0001F3FD\u200D\U0001F680", "JP:𠮷野 家子", "JP:ﾔﾏﾀﾞ ﾀﾛｳ", "KW:محمد\u200f (Mo) Al-Sabah\u200e", "IN:क\u094d\u200dष",
}

var beforeStreet = []string{
	"c/o O'Malley & Sons", "Attn: \"Front Desk\"", "2. Hinterhaus, 3. OG links", "Packstation 114", "⚠ Beware of the dog 🐕", "chez Mme L'Écuyer",
}

var afterStreet = []string{"Apt. 4½", "Code: #12*A\\B", "3rd floor;\tring twice", "Bât. C", "Postfach 7", "", "(behind the church)"}

var plainTexts = []string{
	"Happy birthday!", "Thank you for everything.", "Please leave it with the neighbours.", "Alles Gute zum Geburtstag, liebe Käthe!",
	"Joyeux Noël à tous les deux.", "Get well soon, Grandpa.", "Ring twice, the bell is quiet.", "¡Feliz cumpleaños!", "For Sam, with love.",
	"Call me before delivery: +44 20 7946 0000.", "Grattis på födelsedagen, Åsa!", "お誕生日おめでとう。", "No plastic wrapping, please.", "Invoice to follow.",
}

// awkwardTexts are texts that each once broke somebody's quoting, encoding,
// splitting, formatting, searching or terminal.
var awkwardTexts = []string{
	"", " ", "\u00a0\u2009\u3000", "\u200b", // nothing, and what looks like it
	"Robert'); DROP TABLE orders;--", "x' OR '1'='1", "'; SELECT pg_sleep(10); --", "-- a comment /* not closed", "$$; $body$; E'\\''; U&'\\0041'",
	"NULL", "null", "\\N", "\\.", "{}", "{NULL,\"a,b\"}", "0", "false", "1e309", "2026-02-30", // words that mean something elsewhere
	"She said \"always\"; I said 'maybe'.", "“Curly”, «guillemets», „Gänsefüßchen“, `backticks`", "ends with a backslash \\", "C:\\new\\table\\u0041\\x00",
	"\\u0000 spelled out, not the character", "{\"json\": \"in \\\"a\\\" string\", \"n\": [1, 2.50, null]}", "<script>alert(\"tea\")</script> &amp; <b>bold</b>",
	"line one\nline two\r\nline three\rline four\n", "\n\nleading newlines", "tab\tseparated\tvalues", "a,b;c|d,\"e\"\r\n", "=HYPERLINK(\"http://example.com\";\"win\")",
	"$1 $2 :name ? ?? %s %d %n %% ${HOME} $(whoami) {{.Total}}", "../../etc/passwd", "mail\r\nBcc: everyone@example.com",
	"\x1b[31mred\x1b[0m \x1b]0;title\x07 bell", "\x01\x02\x7f\u0085 control characters", "\b\f\v",
	"שלום, יום הולדת שמח! (123)", "كل عام وأنتم بخير، ٢٠٢٦", "\u202eoverridden to the left\u202c", "\u2067isolated\u2069 text",
	"\U0001F468\u200D\U0001F469\u200D\U0001F467\u200D\U0001F466 for the whole family \U0001F44D\U0001F3FF \u2764\ufe0f", "\U0001F1E8\U0001F1ED\U0001F1EF\U0001F1F5 \U0001F3F4\u200D\u2620\ufe0f",
	"e\u0301 is not \u00e9, A\u030a is not \u00c5 is not \u212b", "Z\u0351\u036b\u0343a\u0363\u0369l\u0348\u0359g\u0321o\u034e\u0317", "\u0301starts with a combining accent",
	"\ufeffa byte order mark first", "one\u2028two\u2029three", "\uffff\U0010ffff\ufffd noncharacters", "𝕱𝖗𝖆𝖐𝖙𝖚𝖗 𝟚𝟘𝟚𝟞 ﬃ ½ ①", "İIıi ẞß ǆǅ ΣΣς", "क\u094d\u200dष नमस्ते, สวัสดีครับ, 안녕하세요, 你好",
	"soft\u00adhyphen non\u2011breaking word\u2060joiner", "𠜎𠜱𠝹 四字節",
}
