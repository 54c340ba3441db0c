package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sqlq/sqlq/testdata"
)

// readOrders returns the orders of the file that the demo embeds.
func readOrders(t *testing.T) []Order {
	t.Helper()
	orders, err := ReadOrders(bytes.NewReader(testdata.Orders))
	if err != nil {
		t.Fatal(err)
	}
	return orders
}

func TestOrdersFile(t *testing.T) {
	t.Parallel()
	orders := readOrders(t)
	if len(orders) < 500 {
		t.Errorf("%d orders, want at least 500", len(orders))
	}
	form := regexp.MustCompile(`^SO-2026-\d{6}$`)
	ids := make(map[string]bool)
	var last time.Time
	for _, o := range orders {
		if !form.MatchString(o.ID) {
			t.Errorf("order id %q", o.ID)
		}
		if ids[o.ID] {
			t.Errorf("order id %s is there twice", o.ID)
		}
		ids[o.ID] = true
		if o.PlacedAt.Before(last) {
			t.Errorf("order %s was placed before the one above it", o.ID)
		}
		last = o.PlacedAt
	}
	if d := last.Sub(orders[0].PlacedAt); d < 5*time.Minute || d > 20*time.Minute {
		t.Errorf("the campaign took %v, want some minutes", d)
	}
}

// The sums are calculated again in fractions, independently of the integers and
// the rounding that the generator and Check share.
func TestOrdersTotals(t *testing.T) {
	t.Parallel()
	for _, o := range readOrders(t) {
		sum := new(big.Rat)
		for _, l := range o.Lines {
			sum.Add(sum, new(big.Rat).Mul(big.NewRat(l.Quantity, 1), big.NewRat(l.UnitPrice, 1)))
		}
		if sum.Cmp(big.NewRat(o.Subtotal, 1)) != 0 {
			t.Errorf("order %s: subtotal %d, lines say %s", o.ID, o.Subtotal, sum.RatString())
		}
		if d := o.Discount; d != nil {
			if d.Kind == DiscountPercent {
				// Nearest with halves up: amount − ½ ≤ exact, exact < amount + ½.
				exact := new(big.Rat).Mul(sum, big.NewRat(d.BasisPoints, 10_000))
				over := exact.Sub(big.NewRat(d.Amount, 1), exact)
				if half := big.NewRat(1, 2); over.Cmp(half) > 0 || over.Cmp(new(big.Rat).Neg(half)) <= 0 {
					t.Errorf("order %s: discount %d is %s off", o.ID, d.Amount, over.FloatString(3))
				}
			}
			sum.Sub(sum, big.NewRat(d.Amount, 1))
		}
		sum.Add(sum, big.NewRat(o.Shipping, 1))
		if sum.Sign() < 0 || sum.Cmp(big.NewRat(o.Total, 1)) != 0 {
			t.Errorf("order %s: total %d, want %s", o.ID, o.Total, sum.RatString())
		}
	}
}

func TestGenerateOrdersReproducesFile(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := WriteOrders(&b, GenerateOrders()); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(b.Bytes(), testdata.Orders) {
		return
	}
	got, want := bytes.SplitAfter(b.Bytes(), []byte("\n")), bytes.SplitAfter(testdata.Orders, []byte("\n"))
	n := 0
	for n < min(len(got), len(want))-1 && bytes.Equal(got[n], want[n]) {
		n++
	}
	t.Fatalf("the generator no longer writes testdata/orders.jsonl; they differ from line %d on:\ngenerated %.300q\nfile      %.300q\n"+
		"if that is intended: go run ./testdata/orders > testdata/orders.jsonl", n+1, got[n], want[n])
}

// What is read and written again is the same line: the type loses nothing,
// and neither does a service that passes an order on as JSON.
func TestOrdersRoundTrip(t *testing.T) {
	t.Parallel()
	orders := readOrders(t)
	var b bytes.Buffer
	if err := WriteOrders(&b, orders); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), testdata.Orders) {
		t.Error("the file changes when it is read and written again")
	}
	if !reflect.DeepEqual(orders, GenerateOrders()) {
		t.Error("the orders read are not the orders generated")
	}
}

// The demo is only as good as its input is varied; this checks that the input
// has what it was made for.
func TestOrdersAreVaried(t *testing.T) {
	t.Parallel()
	orders := readOrders(t)
	customers := make(map[string]Customer)
	currencies := make(map[string]int)
	lineCounts := make(map[int]int)
	has := make(map[string]int)
	texts := make(map[string]bool)
	for _, o := range orders {
		if c, ok := customers[o.Customer.ID]; ok && c != o.Customer {
			t.Errorf("customer %s is %+v and %+v", c.ID, c, o.Customer)
		}
		customers[o.Customer.ID] = o.Customer
		currencies[o.Currency]++
		lineCounts[len(o.Lines)]++
		count := func(what string, is bool) {
			if is {
				has[what]++
			}
		}
		texts[o.Note] = true
		all := o.Note
		if o.GiftMessage != nil {
			texts[*o.GiftMessage] = true
			all += *o.GiftMessage
		}
		d := o.Discount
		decimals, _ := Decimals(o.Currency)
		count("other than two decimals", decimals != 2)
		count("percent discount", d != nil && d.Kind == DiscountPercent)
		count("rounded discount", d != nil && o.Subtotal*d.BasisPoints%10_000 != 0)
		count("amount discount", d != nil && d.Kind == DiscountAmount)
		count("nothing to pay", o.Total == 0)
		count("gift", o.GiftMessage != nil)
		count("gift with an empty card", o.GiftMessage != nil && *o.GiftMessage == "")
		count("note", o.Note != "")
		count("long text", len(all) > 2_000)
		count("SKU on two lines", skuTwice(o.Lines))
		count("no postal code", o.ShipTo.PostalCode == "")
		count("shipped abroad", o.ShipTo.Country != o.Customer.Country)
		count("right to left", strings.ContainsFunc(all, func(r rune) bool { return unicode.In(r, unicode.Hebrew, unicode.Arabic) }))
		count("combining", strings.ContainsFunc(all, unicode.IsMark))
		count("control character", strings.ContainsFunc(all, unicode.IsControl))
		count("beyond 16 bits", strings.ContainsFunc(all, func(r rune) bool { return r > 0xffff }))
	}
	if n := len(customers); n < 180 || n > 220 {
		t.Errorf("%d customers, want about 200", n)
	}
	for _, c := range []string{"EUR", "USD", "GBP", "CHF", "JPY", "KWD", "SEK"} {
		if currencies[c] < 20 {
			t.Errorf("%d orders in %s, want 20 or more", currencies[c], c)
		}
	}
	for n := 1; n <= 7; n++ {
		if lineCounts[n] == 0 {
			t.Errorf("no order has %d lines", n)
		}
	}
	if len(lineCounts) != 7 {
		t.Errorf("orders by number of lines: %v, want 1 to 7", lineCounts)
	}
	for _, text := range slices.Concat(awkwardTexts, plainTexts) {
		if !texts[text] {
			t.Errorf("no order has the text %q", text)
		}
	}
	for _, want := range []struct {
		what     string
		from, to int // in 1000 orders
	}{
		{"other than two decimals", 100, 150}, // what the demo's bug in Sales fails on
		{"percent discount", 70, 90},
		{"rounded discount", 70, 90},
		{"amount discount", 50, 150},
		{"nothing to pay", 3, 30},
		{"gift", 200, 300},
		{"gift with an empty card", 10, 60},
		{"note", 150, 250},
		{"long text", 10, 50},
		{"SKU on two lines", 10, 60},
		{"no postal code", 10, 150},
		{"shipped abroad", 50, 400},
		{"right to left", 3, 100},
		{"combining", 3, 100},
		{"control character", 10, 200},
		{"beyond 16 bits", 3, 100},
	} {
		if share := has[want.what] * 1000 / len(orders); share < want.from || share > want.to {
			t.Errorf("%s: %d of 1000 orders, want %d to %d", want.what, share, want.from, want.to)
		}
	}
	t.Logf("%d orders, %d customers, %v, %v", len(orders), len(customers), currencies, has)
}

func skuTwice(lines []Line) bool {
	seen := make(map[string]bool)
	for _, l := range lines {
		if seen[l.SKU] {
			return true
		}
		seen[l.SKU] = true
	}
	return false
}

// PostgreSQL's text and jsonb take any Unicode text but NUL.
func TestOrdersFitPostgres(t *testing.T) {
	t.Parallel()
	var check func(line int, v any)
	check = func(line int, v any) {
		switch v := v.(type) {
		case string:
			if strings.ContainsRune(v, 0) || !utf8.ValidString(v) {
				t.Errorf("line %d: %q", line, v)
			}
		case []any:
			for _, e := range v {
				check(line, e)
			}
		case map[string]any:
			for _, e := range v {
				check(line, e)
			}
		}
	}
	line := 0
	for text := range bytes.Lines(testdata.Orders) {
		line++
		var v any
		if err := json.Unmarshal(text, &v); err != nil {
			t.Fatalf("line %d: %v", line, err)
		}
		check(line, v)
	}
}

func TestReadOrdersNamesTheLine(t *testing.T) {
	t.Parallel()
	good := func(id string) string {
		var b strings.Builder
		o := Order{
			ID:       id,
			Currency: "KWD",
			Lines:    []Line{{SKU: "TEA-0001", Quantity: 2, UnitPrice: 1_250}},
			Subtotal: 2_500,
			Discount: &Discount{Kind: DiscountPercent, BasisPoints: 3_333, Amount: 833},
			Total:    1_667,
		}
		if err := WriteOrders(&b, []Order{o}); err != nil {
			t.Fatal(err)
		}
		return strings.TrimSuffix(b.String(), "\n")
	}
	swap := func(old, new string) string {
		line := good("B")
		if !strings.Contains(line, old) {
			t.Fatalf("%s is not in %s", old, line)
		}
		return strings.Replace(line, old, new, 1)
	}
	for _, tt := range []struct{ name, line, want string }{
		{"cut off", good("B")[:100], "unexpected EOF"},
		{"empty", "", "empty line"},
		{"not JSON", "SO-2026-000001;12.50", "invalid character"},
		{"null", "null", "without an id"},
		{"two orders", good("B") + good("D"), "something follows"},
		{"stray bracket", good("B") + "}", "something follows"},
		{"not UTF-8", swap(`"note":""`, "\"note\":\"caf\xe9\""), "not UTF-8"},
		{"unknown field", swap(`"note"`, `"remark"`), `unknown field "remark"`},
		{"amount with decimals", swap(`"total":1667`, `"total":1.667`), "1.667"},
		{"unknown currency", swap(`"KWD"`, `"kwd"`), `unknown currency "kwd"`},
		{"no lines", swap(`[{"sku":"TEA-0001","title":"","quantity":2,"unit_price":1250}]`, `[]`), "no lines"},
		{"no quantity", swap(`"quantity":2`, `"quantity":0`), "line 1: quantity 0 at 1.250 KWD"},
		{"wrong subtotal", swap(`"subtotal":2500`, `"subtotal":2499`), "subtotal is 2.499 KWD, but should be 2.500 KWD"},
		{"wrong rounding", swap(`"amount":833`, `"amount":834`), "discount is 0.834 KWD, but should be 0.833 KWD"},
		{"unknown discount", swap(`"percent"`, `"loyalty"`), `unknown kind of discount "loyalty"`},
		{"discount above the subtotal", swap(`"kind":"percent","basis_points":3333,"amount":833`, `"kind":"amount","amount":2501`), "a discount of 2.501 KWD on 2.500 KWD"},
		{"wrong total", swap(`"total":1667`, `"total":1666`), "total is 1.666 KWD, but should be 1.667 KWD"},
		{"id repeated", good("A"), "order A is already on line 1"},
		{"too long", strings.Repeat(" ", maxOrderLine) + good("B"), "too long"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file := strings.Join([]string{good("A"), tt.line, good("C"), ""}, "\n")
			orders, err := ReadOrders(strings.NewReader(file))
			if err == nil {
				t.Fatal("no error")
			}
			if orders != nil {
				t.Errorf("%d orders beside the error", len(orders))
			}
			if !strings.Contains(err.Error(), "line 2: ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q, want line 2 and %q", err, tt.want)
			}
		})
	}
	orders, err := ReadOrders(strings.NewReader(good("A") + "\n" + good("B"))) // no newline at the end
	if err != nil || len(orders) != 2 {
		t.Errorf("two good lines: %d orders, error %v", len(orders), err)
	}
}

// The same with the real file: whichever line is cut, the error names it.
func TestReadOrdersDamagedFile(t *testing.T) {
	t.Parallel()
	lines := slices.Collect(bytes.Lines(testdata.Orders))
	for _, n := range []int{1, 2, 250, len(lines)} {
		damaged := slices.Clone(lines)
		cut := len(damaged[n-1]) / 2
		damaged[n-1] = append(slices.Clone(damaged[n-1][:cut]), '\n')
		_, err := ReadOrders(bytes.NewReader(slices.Concat(damaged...)))
		if want := fmt.Sprintf("line %d: ", n); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("line %d cut in half: error %v", n, err)
		}
	}
}

func TestFormatAmount(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		minor    int64
		currency string
		want     string
	}{
		{12345, "EUR", "123.45 EUR"},
		{12345, "JPY", "12345 JPY"},
		{12345, "KWD", "12.345 KWD"},
		{0, "EUR", "0.00 EUR"},
		{0, "JPY", "0 JPY"},
		{5, "KWD", "0.005 KWD"},
		{-5, "CHF", "-0.05 CHF"},
		{-12345, "SEK", "-123.45 SEK"},
		{100, "USD", "1.00 USD"},
		{7, "XXX", `7 minor units of "XXX"`},
	} {
		if got := FormatAmount(tt.minor, tt.currency); got != tt.want {
			t.Errorf("FormatAmount(%d, %q) = %q, want %q", tt.minor, tt.currency, got, tt.want)
		}
	}
}
