package demo

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// What GenerateOrders makes. A change to any of it, or to a list below, or to
// the order of two draws changes the whole file: write it anew.
const (
	orderCount   = 600
	orderSeed    = 2026
	campaignTime = 14 * time.Minute
)

var campaignStart = time.Date(2026, time.March, 5, 9, 0, 0, 0, time.UTC)

// GenerateOrders returns the orders of testdata/orders.jsonl, the same ones
// at every call and on every machine: one seeded source, integers only, no
// clock and no walk over a map.
//
// What is rare in a real shop and breaks programs is here often enough to be
// met in any run: see the lists at the end of the file. There is no NUL
// character, since PostgreSQL's text cannot hold one.
func GenerateOrders() []Order {
	g := &generator{
		rng:     rand.New(rand.NewPCG(orderSeed, 1)),
		plain:   deck[string]{cards: plainTexts},
		awkward: deck[string]{cards: awkwardTexts},
	}
	buyers := g.buyers()
	times := g.times()
	orders := make([]Order, orderCount)
	number := 117
	for i := range orders {
		orders[i] = g.order(fmt.Sprintf("SO-2026-%06d", number), times[i], buyers)
		// Numbers go up with gaps, as a sequence leaves them where checkouts
		// were abandoned.
		number++
		if g.oneIn(9) {
			number += 1 + g.rng.IntN(4)
		}
	}
	return orders
}

type generator struct {
	rng            *rand.Rand
	plain, awkward deck[string]
	unserved       []buyer // buyers without an order so far
}

// A deck deals each of its cards once before it deals one again, so that
// everything in a list gets into the file.
type deck[T any] struct {
	cards []T
	left  []T
}

func (d *deck[T]) deal(rng *rand.Rand) T {
	if len(d.left) == 0 {
		d.left = slices.Clone(d.cards)
		rng.Shuffle(len(d.left), func(i, j int) { d.left[i], d.left[j] = d.left[j], d.left[i] })
	}
	card := d.left[0]
	d.left = d.left[1:]
	return card
}

func (g *generator) oneIn(n int) bool { return g.rng.IntN(n) == 0 }

// percent is true in p of 100 cases.
func (g *generator) percent(p int) bool { return g.rng.IntN(100) < p }

func pick[T any](g *generator, of []T) T { return of[g.rng.IntN(len(of))] }

// times returns when the orders come in: most of them soon after the mail
// went out, fewer and fewer later.
func (g *generator) times() []time.Time {
	times := make([]time.Time, orderCount)
	for i := range times {
		ms := min(g.rng.Int64N(campaignTime.Milliseconds()), g.rng.Int64N(campaignTime.Milliseconds()))
		times[i] = campaignStart.Add(time.Duration(ms) * time.Millisecond)
	}
	slices.SortFunc(times, time.Time.Compare)
	return times
}

// A buyer is a customer with what the order form remembers.
type buyer struct {
	Customer
	currency string
	home     Address
}

// buyers returns all customers, shuffled.
func (g *generator) buyers() []buyer {
	var all []buyer
	add := func(m market, name string) {
		n := 1000 + 7*len(all)
		c := Customer{
			ID:      fmt.Sprintf("C-%05d", n),
			Name:    name,
			Email:   fmt.Sprintf(pick(g, emails), n),
			Country: m.country,
		}
		all = append(all, buyer{Customer: c, currency: m.currency, home: g.address(m, name)})
	}
	for _, m := range markets {
		taken := make(map[string]bool)
		given, family := strings.Split(m.given, ","), strings.Split(m.family, ",")
		for len(taken) < m.buyers {
			name := fmt.Sprintf(m.nameForm, pick(g, given), pick(g, family))
			if !taken[name] {
				taken[name] = true
				add(m, name)
			}
		}
		for _, odd := range oddNames {
			if country, name, _ := strings.Cut(odd, ":"); country == m.country {
				add(m, name)
			}
		}
	}
	g.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	g.unserved = slices.Clone(all)
	return all
}

func (g *generator) address(m market, name string) Address {
	place := strings.Split(pick(g, strings.Split(m.places, ";")), "|") // postal code, city, region
	a := Address{
		Recipient:  name,
		PostalCode: place[0],
		City:       place[1],
		Region:     place[2],
		Country:    m.country,
	}
	if g.oneIn(8) {
		a.Lines = append(a.Lines, pick(g, beforeStreet))
	}
	a.Lines = append(a.Lines, fmt.Sprintf(pick(g, strings.Split(m.streets, ";")), 1+g.rng.IntN(180)))
	if g.oneIn(5) {
		a.Lines = append(a.Lines, pick(g, afterStreet))
	}
	return a
}

// nextBuyer takes a buyer without an order in 40 of 100 cases, until in 600
// orders everyone has had one; else rather one of those near the front of the
// list, who so order again and again.
func (g *generator) nextBuyer(buyers []buyer) buyer {
	if len(g.unserved) > 0 && g.percent(40) {
		b := g.unserved[0]
		g.unserved = g.unserved[1:]
		return b
	}
	return buyers[min(g.rng.IntN(len(buyers)), g.rng.IntN(len(buyers)))]
}

func (g *generator) order(id string, at time.Time, buyers []buyer) Order {
	b := g.nextBuyer(buyers)
	o := Order{
		ID:       id,
		PlacedAt: at,
		Customer: b.Customer,
		Currency: b.currency,
		Lines:    g.lines(b.currency),
		ShipTo:   b.home,
	}
	for _, l := range o.Lines {
		o.Subtotal += l.Quantity * l.UnitPrice
	}
	if g.percent(18) {
		o.Discount = g.discount(o.Subtotal, o.Currency)
	}
	o.Shipping = g.shipping(o.Subtotal, o.Currency)
	o.Total = o.Subtotal + o.Shipping
	if o.Discount != nil {
		o.Total -= o.Discount.Amount
	}
	if g.percent(25) {
		o.ShipTo = pick(g, buyers).home
		card := ""
		if !g.oneIn(6) {
			card = g.text()
		}
		o.GiftMessage = &card
	}
	if g.percent(20) {
		o.Note = g.text()
	}
	return o
}

func (g *generator) text() string {
	switch n := g.rng.IntN(100); {
	case n < 5:
		return g.longText()
	case n < 55:
		return g.awkward.deal(g.rng)
	default:
		return g.plain.deal(g.rng)
	}
}

// longText returns 2 to 9 KB; some of it without any space to break a line at.
func (g *generator) longText() string {
	size := 2_000 + g.rng.IntN(7_000)
	space := pick(g, []string{" ", " ", "\n\n", ""})
	var b strings.Builder
	for b.Len() < size {
		b.WriteString(g.plain.deal(g.rng))
		b.WriteString(space)
	}
	return strings.TrimSpace(b.String())
}

func (g *generator) lines(currency string) []Line {
	// Small orders are the rule; the lower of two draws makes them so.
	n := min(1+g.rng.IntN(7), 1+g.rng.IntN(7))
	var lines []Line
	for _, i := range g.rng.Perm(len(articles))[:n] {
		a := articles[i]
		lines = append(lines, Line{
			SKU:       a.sku,
			Title:     a.title,
			Quantity:  g.quantity(a.euroCents),
			UnitPrice: price(a.euroCents, currency),
		})
	}
	if n > 1 && g.percent(6) {
		lines[n-1] = lines[0] // the same article put into the basket twice
		lines[n-1].Quantity = 1
	}
	return lines
}

// quantity is large for an office that stocks up, but nobody orders a hundred
// of what is dear.
func (g *generator) quantity(euroCents int64) int64 {
	switch n := g.rng.IntN(100); {
	case n < 70 || euroCents > 5_000:
		return 1
	case n < 95:
		return int64(2 + g.rng.IntN(4))
	case n < 99:
		return pick(g, []int64{10, 12, 20, 25})
	default:
		return pick(g, []int64{100, 250, 1000})
	}
}

// discount prefers a percentage that does not come out even, so that nearly
// every one in the file has to be rounded.
func (g *generator) discount(subtotal int64, currency string) *Discount {
	if g.percent(48) {
		codes := slices.Clone(percentCodes)
		g.rng.Shuffle(len(codes), func(i, j int) { codes[i], codes[j] = codes[j], codes[i] })
		uneven := slices.IndexFunc(codes, func(d Discount) bool { return subtotal*d.BasisPoints%10_000 != 0 })
		d := codes[max(uneven, 0)]
		d.Amount = percentOf(subtotal, d.BasisPoints)
		return &d
	}
	d := pick(g, amountCodes)
	d.Amount = min(price(d.Amount, currency), subtotal)
	return &d
}

// shipping is free from 60 euros on, and for those who collect their order.
func (g *generator) shipping(subtotal int64, currency string) int64 {
	cost := price(pick(g, []int64{390, 590, 590, 1290}), currency)
	if g.oneIn(12) || subtotal >= price(6000, currency) {
		return 0
	}
	return cost
}

// price turns a price in euro cents into one that a shop would put on a label
// in another currency, in its minor unit. Zero stays zero.
func price(euroCents int64, currency string) int64 {
	if euroCents == 0 {
		return 0
	}
	// The rate is in thousandths of a minor unit per cent. The amount goes up
	// to a multiple of step, less whatever makes it end in 99 or 49.
	var rate, step, less int64
	switch currency {
	case "EUR":
		rate, step = 1_000, 1
	case "USD":
		rate, step, less = 1_090, 100, 1
	case "GBP":
		rate, step, less = 860, 50, 1
	case "CHF":
		rate, step = 960, 5 // the smallest coin is 5 centimes
	case "SEK":
		rate, step = 11_200, 100 // there are no öre coins any more
	case "JPY":
		rate, step = 1_650, 10
	case "KWD":
		rate, step = 3_350, 5 // the smallest coin is 5 fils
	default:
		panic("no price in " + currency)
	}
	unit := 1_000 * step
	return (euroCents*rate+unit-1)/unit*step - less
}

// The lists. Invisible characters, and those that change how the text around
// them is shown, are written as escapes.

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

// Domains are those that nobody can own (RFC 2606).
var emails = []string{
	"tea.lover.%d@example.com", "nightowl+shop%d@example.org", "M.%d@mail.example", "info%d@bücher.example",
	"o'clock-%d@example.ie.example", "%d@example.net", "post%d@例え.example", "KUNDE_%d@EXAMPLE.COM",
	"почта%d@пример.example", "\"two words %d\"@example.com", "a%d@a.very.long.chain.of.sub.domains.example.org",
}

// A market is a country that the shop sells to.
type market struct {
	country, currency string
	buyers            int // beside those in oddNames; fewer than the names below can make
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

// oddNames are customers who are in every old shop's database and its bug
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

// awkwardTexts each once broke somebody's quoting, encoding, splitting,
// formatting, searching or terminal.
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
