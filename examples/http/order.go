package main

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

const tables = `
	CREATE TABLE IF NOT EXISTS shop_order (
		id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
		item  text NOT NULL,
		state text NOT NULL
	)`

type order struct {
	ID    int64  `json:"id"`
	Item  string `json:"item"`
	State string `json:"state"`
}

// PlaceOrder contains only the order's id: its row was committed with the command.
type PlaceOrder struct{ ID int64 }

func (PlaceOrder) MessageType() string { return "orders.PlaceOrder" }

// placeOrder is where the slow work would be. The new state and the removal of the command commit together.
func placeOrder(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[PlaceOrder]) error {
	_, err := tx.Exec(ctx, `UPDATE shop_order SET state = 'placed' WHERE id = $1`, d.Message.ID)
	return err
}
