package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
)

// shipping is a service with a database of its own, as far as sqlq can tell: it writes through its own pool, so its
// handler runs at least once, and must itself ensure that a second run changes nothing.
type shipping struct {
	pool     *pgxpool.Pool
	handling time.Duration // time per shipment, apart from the database
}

func (s shipping) endpoint() sqlq.Endpoint {
	return sqlq.Endpoint{Name: "shipping", Concurrency: 4, Handlers: []sqlq.Handler{sqlq.Handle(s.shipOrder)}}
}

func (s shipping) shipOrder(ctx context.Context, d *sqlq.Delivery[OrderPlaced]) error {
	m, to := d.Message, d.Message.ShipTo
	street := to.Lines
	if street == nil {
		street = []string{}
	}
	// A real service would use a unique constraint with ON CONFLICT DO NOTHING; shopTables says why there is none
	// here.
	_, err := s.pool.Exec(ctx, `
		INSERT INTO `+shopSchema+`.shipments (order_id, recipient, street, postal_code, city, region, country, gift_message, articles)
		SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9
		WHERE NOT EXISTS (SELECT FROM `+shopSchema+`.shipments WHERE order_id = $1)`,
		m.OrderID, to.Recipient, street, to.PostalCode, to.City, to.Region, to.Country, m.GiftMessage, m.Articles)
	if err != nil {
		return fmt.Errorf("ship order %s: %w", m.OrderID, err)
	}
	return pause(ctx, s.handling)
}
