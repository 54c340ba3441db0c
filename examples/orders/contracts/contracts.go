// Package contracts contains what the services agree on: their messages, and where commands go.
package contracts

import "time"

// PlaceOrder is the command with which a client hands an order to Sales.
type PlaceOrder struct {
	Order    int64  `json:"order"`
	Customer string `json:"customer"`
	Cents    int64  `json:"cents"`
}

func (PlaceOrder) MessageType() string { return "sales.PlaceOrder" }

// OrderPlaced is the event that Sales publishes after writing an order. It contains what the others need, so they need
// not ask.
type OrderPlaced struct {
	Order    int64     `json:"order"`
	Customer string    `json:"customer"`
	Cents    int64     `json:"cents"`
	Placed   time.Time `json:"placed"`
}

func (OrderPlaced) MessageType() string { return "sales.OrderPlaced" }
func (OrderPlaced) IsEvent()            {}

// Routes says which service handles a command, for everyone who sends it. Events have no route: their handlers subscribe.
func Routes() map[string]string {
	return map[string]string{
		PlaceOrder{}.MessageType(): "sales",
	}
}
