// Package mailing writes to customers.
package mailing

import (
	"context"
	"fmt"

	"github.com/sqlq/sqlq/examples/monolith/billing"
	"github.com/sqlq/sqlq/sqlq"
)

// Endpoint is what the rest of the process sees of the module. It sends mail with send, which may be slow and may fail: then it
// is retried, and the other modules go on.
func Endpoint(send func(ctx context.Context, to, text string) error) sqlq.Endpoint {
	mail := func(ctx context.Context, d *sqlq.Delivery[billing.Invoiced]) error {
		m := d.Message
		return send(ctx, m.Customer, fmt.Sprintf("Invoice %d for your order %d: %d.%02d €", m.Invoice, m.Order, m.Cents/100, m.Cents%100))
	}
	return sqlq.Endpoint{Name: "mailing", Handlers: []sqlq.Handler{sqlq.Handle(mail)}}
}
