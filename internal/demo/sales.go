package demo

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// PlaceOrder is the command with which the client hands an order to Sales. In a real shop each service would declare
// the messages that it handles itself; here they share the Go types.
type PlaceOrder struct {
	Order Order  `json:"order"`
	Shown string `json:"shown"` // the total as the customer saw it: "123.45 EUR"
}

func (PlaceOrder) MessageType() string { return "sales.PlaceOrder" }

// OrderPlaced is the event that Sales publishes after writing an order. It contains what the other services need, so
// that they need not ask.
type OrderPlaced struct {
	OrderID     string  `json:"order_id"`
	CustomerID  string  `json:"customer_id"`
	Currency    string  `json:"currency"`
	Total       int64   `json:"total"`    // minor units of the currency
	Articles    int64   `json:"articles"` // how many to pack
	ShipTo      Address `json:"ship_to"`
	GiftMessage *string `json:"gift_message,omitempty"`
}

func (OrderPlaced) MessageType() string { return "sales.OrderPlaced" }
func (OrderPlaced) IsEvent()            {}

// sales is one release of the Sales service.
type sales struct {
	handling time.Duration // time per order, apart from the database
	retry    sqlq.RetryPolicy

	// decimals returns how many decimals an amount in a currency has; the release with the bug always returns 2.
	decimals func(currency string) int
}

func rightDecimals(currency string) int {
	n, _ := Decimals(currency)
	return n
}

func alwaysTwoDecimals(string) int { return 2 }

func (s sales) endpoint() sqlq.Endpoint {
	return sqlq.Endpoint{
		Name: "sales",
		// HandleTx handlers run one at a time on each receive connection, and Sales has two. So this is only the number
		// of failures in a row after which the endpoint assumes that the cause is not in the messages and slows down to one
		// probe at a time. It is high because on a slow machine the failing orders can come back all together.
		Concurrency: 60,
		Retry:       s.retry,
		Handlers:    []sqlq.Handler{sqlq.HandleTx(s.placeOrder)},
	}
}

// placeOrder writes the order and publishes OrderPlaced. Both commit together with the removal of the command, or not at
// all: if it fails, what it has written is undone.
func (s sales) placeOrder(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[PlaceOrder]) error {
	o := d.Message.Order
	if err := writeOrder(ctx, tx, o); err != nil {
		return fmt.Errorf("place order %s: %w", o.ID, err)
	}
	if err := s.checkShown(o.Currency, d.Message.Shown); err != nil {
		return fmt.Errorf("place order %s: %w", o.ID, err)
	}
	if err := pause(ctx, s.handling); err != nil {
		return err
	}
	return d.Publish(o.placed())
}

// placed returns what the other services are told about the order.
func (o *Order) placed() OrderPlaced {
	var articles int64
	for _, l := range o.Lines {
		articles += l.Quantity
	}
	return OrderPlaced{
		OrderID: o.ID, CustomerID: o.Customer.ID, Currency: o.Currency, Total: o.Total,
		Articles: articles, ShipTo: o.ShipTo, GiftMessage: o.GiftMessage,
	}
}

func writeOrder(ctx context.Context, tx pgx.Tx, o Order) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO `+shopSchema+`.orders (order_id, customer_id, customer, currency, subtotal, total, note)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		o.ID, o.Customer.ID, o.Customer.Name, o.Currency, o.Subtotal, o.Total, o.Note)
	if err != nil {
		return fmt.Errorf("write the order: %w", err)
	}
	for i, l := range o.Lines {
		_, err := tx.Exec(ctx, `
			INSERT INTO `+shopSchema+`.order_lines (order_id, position, sku, title, quantity, unit_price)
			VALUES ($1, $2, $3, $4, $5, $6)`,
			o.ID, i+1, l.SKU, l.Title, l.Quantity, l.UnitPrice)
		if err != nil {
			return fmt.Errorf("write line %d: %w", i+1, err)
		}
	}
	return nil
}

// checkShown checks that the amount shown to the customer can be charged.
func (s sales) checkShown(currency, shown string) error {
	number, _, _ := strings.Cut(shown, " ")
	_, fraction, _ := strings.Cut(number, ".")
	if want := s.decimals(currency); len(fraction) != want {
		return &AmountError{Shown: shown, Decimals: len(fraction), Want: want}
	}
	return nil
}

// AmountError is returned for an amount that does not have the decimals of its currency.
type AmountError struct {
	Shown          string
	Decimals, Want int
}

func (e *AmountError) Error() string {
	return fmt.Sprintf("total %q has %d decimals, want %d", e.Shown, e.Decimals, e.Want)
}

// pause stands for the missing part of a handler: the fraud check, the mail to the customer.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
