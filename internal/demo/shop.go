package demo

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// The demo's schemas. It touches nothing else in a database that the user names.
const (
	queueSchema = "sqlq_demo"      // sqlq's own tables
	shopSchema  = "sqlq_demo_shop" // the business tables of the services
)

// shopTables are the business tables.
//
// They deliberately have no primary key or unique constraint. In a real shop orders.order_id would have one, and
// a message that is handled twice would cause an error, or be hidden by ON CONFLICT. Here a second row must be
// possible, or the audit could not tell "exactly once" from "twice, but the constraint hid it".
const shopTables = `
	CREATE TABLE ` + shopSchema + `.orders (
		order_id    text NOT NULL,
		customer_id text NOT NULL,
		customer    text NOT NULL,
		currency    text NOT NULL,
		subtotal    bigint NOT NULL, -- this and all amounts: minor units of the currency
		total       bigint NOT NULL,
		note        text NOT NULL,
		written_at  timestamptz NOT NULL DEFAULT clock_timestamp()
	);
	CREATE TABLE ` + shopSchema + `.order_lines (
		order_id   text NOT NULL,
		position   integer NOT NULL,
		sku        text NOT NULL,
		title      text NOT NULL,
		quantity   bigint NOT NULL,
		unit_price bigint NOT NULL
	);
	CREATE TABLE ` + shopSchema + `.invoices (
		order_id    text NOT NULL,
		customer_id text NOT NULL,
		currency    text NOT NULL,
		amount      bigint NOT NULL
	);
	CREATE TABLE ` + shopSchema + `.shipments (
		order_id     text NOT NULL,
		recipient    text NOT NULL,
		street       text[] NOT NULL,
		postal_code  text NOT NULL,
		city         text NOT NULL,
		region       text NOT NULL,
		country      text NOT NULL,
		gift_message text, -- null: no gift; empty: a gift with an empty card
		articles     bigint NOT NULL
	);
	CREATE TABLE ` + shopSchema + `.points (
		order_id    text NOT NULL,
		customer_id text NOT NULL,
		points      bigint NOT NULL
	);
	-- The services look for an order by its number, as Shipping does before it ships.
	CREATE INDEX ON ` + shopSchema + `.shipments (order_id);`

func createShop(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, shopTables); err != nil {
		return fmt.Errorf("create the business tables: %w", err)
	}
	return nil
}
