package demo

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode/utf8"
)

// Order is one order as a shop's web site would submit it, and one line of
// testdata/orders.jsonl.
//
// Every amount is a whole number of the currency's minor unit: 12345 is
// 123.45 EUR, 12345 JPY and 12.345 KWD. So no sum in the demo or in its audit
// suffers from floating-point rounding.
type Order struct {
	ID       string    `json:"id"`        // "SO-2026-000123", unique in the file
	PlacedAt time.Time `json:"placed_at"` // UTC, whole milliseconds, never before the line above
	Customer Customer  `json:"customer"`
	Currency string    `json:"currency"` // ISO 4217
	Lines    []Line    `json:"lines"`    // at least one; a SKU may be on two lines

	Subtotal int64     `json:"subtotal"`           // the sum of quantity × unit price
	Discount *Discount `json:"discount,omitempty"` // nil: no code was used
	Shipping int64     `json:"shipping"`
	Total    int64     `json:"total"` // subtotal − discount + shipping; zero if a gift code paid for everything

	ShipTo Address `json:"ship_to"`

	// GiftMessage is nil for no gift, and "" for a gift with an empty card: the
	// two mean different things to Shipping.
	GiftMessage *string `json:"gift_message,omitempty"`
	Note        string  `json:"note"` // what the customer typed in the last field, usually nothing
}

// Customer is the person who placed an order. Most of them order more than once.
type Customer struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Email   string `json:"email"`
	Country string `json:"country"` // ISO 3166, two letters
}

// Line is one article of an order.
type Line struct {
	SKU       string `json:"sku"` // text even if it looks like a number: leading zeros matter
	Title     string `json:"title"`
	Quantity  int64  `json:"quantity"`
	UnitPrice int64  `json:"unit_price"` // zero for a free sample
}

// The kinds of Discount.
const (
	DiscountPercent = "percent"
	DiscountAmount  = "amount"
)

// Discount is what a code took off the subtotal.
type Discount struct {
	Code string `json:"code"`
	Kind string `json:"kind"`

	// BasisPoints is the rate of a DiscountPercent, 1250 for 12.5 %; absent
	// for a DiscountAmount.
	BasisPoints int64 `json:"basis_points,omitempty"`

	// Amount is the money taken off, never more than the subtotal. A
	// percentage is rounded to the nearest minor unit, halves up.
	Amount int64 `json:"amount"`
}

// Address is where an order is to be shipped; not always to the customer.
type Address struct {
	Recipient  string   `json:"recipient"`
	Lines      []string `json:"lines"`
	PostalCode string   `json:"postal_code,omitempty"` // some countries have none
	City       string   `json:"city"`
	Region     string   `json:"region,omitempty"`
	Country    string   `json:"country"` // ISO 3166, two letters
}

// maxOrderLine limits one line of the input, in bytes. The longest in the
// file has less than 20 KB; the limit only prevents a file of another kind from
// being read into memory as one line.
const maxOrderLine = 1 << 20

// ReadOrders reads JSON lines as WriteOrders writes them. It stops at the first
// line that is not a valid order, with an error that names the line (from 1): a
// line that is damaged, is not UTF-8, has a field unknown to Order, has
// wrong sums, or repeats an id.
func ReadOrders(r io.Reader) ([]Order, error) {
	var orders []Order
	seen := make(map[string]int)
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxOrderLine)
	line := 0
	for in.Scan() {
		line++
		o, err := decodeOrder(in.Bytes())
		if err == nil {
			err = o.Check()
		}
		if err != nil {
			return nil, fmt.Errorf("read orders: line %d: %w", line, err)
		}
		if first, ok := seen[o.ID]; ok {
			return nil, fmt.Errorf("read orders: line %d: order %s is already on line %d", line, o.ID, first)
		}
		seen[o.ID] = line
		orders = append(orders, o)
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("read orders: line %d: %w", line+1, err)
	}
	return orders, nil
}

// decodeOrder is strict where encoding/json is lenient: encoding/json would
// replace bytes that are not UTF-8 and drop unknown fields, and the demo's audit
// would then compare the tables with something other than the file.
func decodeOrder(line []byte) (Order, error) {
	if !utf8.Valid(line) {
		return Order{}, errors.New("not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	var o Order
	switch err := dec.Decode(&o); {
	case errors.Is(err, io.EOF):
		return Order{}, errors.New("empty line")
	case err != nil:
		return Order{}, fmt.Errorf("decode order: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Order{}, errors.New("something follows the order on its line")
	}
	return o, nil
}

// WriteOrders writes one compact JSON object per line. Text stays UTF-8; only
// what JSON requires is escaped, and U+2028 and U+2029, which encoding/json
// always escapes.
func WriteOrders(w io.Writer, orders []Order) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, o := range orders {
		if err := enc.Encode(o); err != nil {
			return fmt.Errorf("write order %s: %w", o.ID, err)
		}
	}
	return nil
}

// Check returns an error if the order's sums do not follow from its lines, or
// if it lacks what Sales needs.
func (o *Order) Check() error {
	if o.ID == "" {
		return errors.New("order without an id")
	}
	if _, known := Decimals(o.Currency); !known {
		return fmt.Errorf("order %s: unknown currency %q", o.ID, o.Currency)
	}
	if len(o.Lines) == 0 {
		return fmt.Errorf("order %s: no lines", o.ID)
	}
	var subtotal int64
	for i, l := range o.Lines {
		if l.Quantity <= 0 || l.UnitPrice < 0 {
			return fmt.Errorf("order %s: line %d: quantity %d at %s", o.ID, i+1, l.Quantity, FormatAmount(l.UnitPrice, o.Currency))
		}
		subtotal += l.Quantity * l.UnitPrice
	}
	if err := o.checkAmount("subtotal", o.Subtotal, subtotal); err != nil {
		return err
	}
	var off int64
	if d := o.Discount; d != nil {
		off = d.Amount
		switch d.Kind {
		case DiscountPercent:
			if err := o.checkAmount("discount", off, percentOf(subtotal, d.BasisPoints)); err != nil {
				return err
			}
		case DiscountAmount:
		default:
			return fmt.Errorf("order %s: unknown kind of discount %q", o.ID, d.Kind)
		}
	}
	if off < 0 || off > subtotal || o.Shipping < 0 {
		return fmt.Errorf("order %s: a discount of %s on %s, shipping %s", o.ID,
			FormatAmount(off, o.Currency), FormatAmount(subtotal, o.Currency), FormatAmount(o.Shipping, o.Currency))
	}
	return o.checkAmount("total", o.Total, subtotal-off+o.Shipping)
}

func (o *Order) checkAmount(what string, got, want int64) error {
	if got == want {
		return nil
	}
	return fmt.Errorf("order %s: %s is %s, but should be %s", o.ID, what,
		FormatAmount(got, o.Currency), FormatAmount(want, o.Currency))
}

// percentOf returns that share of a non-negative amount, rounded to the
// nearest minor unit, halves up.
func percentOf(amount, basisPoints int64) int64 {
	return (amount*basisPoints + 5_000) / 10_000
}

// Decimals returns how many decimals the minor unit of a currency stands for
// (ISO 4217): 2 for EUR, 0 for JPY, 3 for KWD. It knows only the currencies of
// the file.
func Decimals(currency string) (n int, known bool) {
	switch currency {
	case "EUR", "USD", "GBP", "CHF", "SEK":
		return 2, true
	case "JPY":
		return 0, true
	case "KWD":
		return 3, true
	}
	return 0, false
}

// FormatAmount formats an amount for a reader: "123.45 EUR", "12345 JPY",
// "12.345 KWD".
func FormatAmount(minor int64, currency string) string {
	digits, known := Decimals(currency)
	if !known {
		return fmt.Sprintf("%d minor units of %q", minor, currency)
	}
	text, sign := strconv.FormatInt(minor, 10), ""
	if minor < 0 {
		text, sign = text[1:], "-"
	}
	if digits > 0 {
		for len(text) <= digits {
			text = "0" + text
		}
		text = text[:len(text)-digits] + "." + text[len(text)-digits:]
	}
	return sign + text + " " + currency
}
