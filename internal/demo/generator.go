package demo

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// What GenerateOrders makes. Any change to it, to a list in
// generator_lists.go, or to the order of two draws changes the whole file:
// regenerate it.
const (
	orderCount   = 600
	orderSeed    = 2026
	campaignTime = 14 * time.Minute
)

var campaignStart = time.Date(2026, time.March, 5, 9, 0, 0, 0, time.UTC)

// GenerateOrders returns the orders of testdata/orders.jsonl, the same ones
// on every call and on every machine: one seeded source, integers only, no
// clock and no iteration over a map.
//
// What is rare in a real shop and breaks programs is frequent enough here to
// occur in every run: see generator_lists.go. There is no NUL
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
		// Numbers increase with gaps, as a sequence leaves them when checkouts
		// are abandoned.
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
	unserved       []buyer // buyers without an order yet
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

// percent returns true in p of 100 cases.
func (g *generator) percent(p int) bool { return g.rng.IntN(100) < p }

func pick[T any](g *generator, of []T) T { return of[g.rng.IntN(len(of))] }

// times returns when the orders come in: most of them soon after the mail
// went out, then fewer and fewer.
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
// orders everyone has had one; otherwise preferably one near the front of the
// list, so that these order again and again.
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
	// Small orders are the rule; taking the lower of two draws makes them so.
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
		lines[n-1] = lines[0] // the same article twice in the basket
		lines[n-1].Quantity = 1
	}
	return lines
}

// quantity is large for an office that stocks up, but nobody orders a hundred
// expensive articles.
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

// discount prefers a percentage that does not divide evenly, so that nearly
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

// shipping is free from 60 euros on, and for customers who collect their order.
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
	// The rate is in thousandths of a minor unit per cent. The amount is rounded
	// up to a multiple of step, less whatever makes it end in 99 or 49.
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
		rate, step = 11_200, 100 // öre coins no longer exist
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
