package main

import (
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Order is the message that every system carries: 200 bytes of JSON.
type Order struct {
	ID       int64  `json:"id"` // from firstID on, all of the same length
	Customer string `json:"customer"`
	Address  string `json:"address"`
	Item     string `json:"item"`
	Quantity int    `json:"quantity"`
	Cents    int    `json:"cents"`
	Note     string `json:"note"`
}

// MessageType is its type in sqlq.
func (Order) MessageType() string { return "shop.PlaceOrder" }

// Kind is its kind in River.
func (Order) Kind() string { return "place_order" }

const (
	bodySize = 200
	firstID  = 100_000_000
)

func newOrder(id int64) Order {
	return Order{
		ID: id, Customer: "Ada Lovelace", Address: "12 St James's Square, London SW1Y", Item: "Difference engine, spare wheel",
		Quantity: 3, Cents: 4599, Note: "Leave it with the old porter, please",
	}
}

func encode(o Order) []byte {
	body, err := json.Marshal(o)
	if err != nil {
		panic(fmt.Sprintf("an order cannot be encoded: %v", err)) // cannot happen: it has only numbers and strings
	}
	return body
}

// orders makes n orders with ids from first.
func orders(first int64, n int) []Order {
	all := make([]Order, n)
	for i := range all {
		all[i] = newOrder(first + int64(i))
	}
	return all
}

// inbox records which of the expected orders were handled, when, and how often. Handlers call it from any goroutine.
type inbox struct {
	first int64          // the lowest id that is expected
	at    []atomic.Int64 // when each was first handled, in Unix nanoseconds; 0: not yet

	distinct  atomic.Int64
	again     atomic.Int64 // deliveries beyond the first
	strangers atomic.Int64 // ids that were never sent

	full chan struct{} // closed once every expected order was handled

	failing sync.Once
	failed  chan struct{} // closed when the system has broken down
	err     error         // the reason, to be read after failed is closed
}

func newInbox(first int64, n int) *inbox {
	return &inbox{first: first, at: make([]atomic.Int64, n), full: make(chan struct{}), failed: make(chan struct{})}
}

// handled records that the order was handled at a time.
func (in *inbox) handled(id int64, at time.Time) {
	i := id - in.first
	if i < 0 || i >= int64(len(in.at)) {
		in.strangers.Add(1)
		return
	}
	if !in.at[i].CompareAndSwap(0, at.UnixNano()) {
		in.again.Add(1)
		return
	}
	if in.distinct.Add(1) == int64(len(in.at)) {
		close(in.full)
	}
}

// fail records that the receiver has broken down.
func (in *inbox) fail(err error) {
	in.failing.Do(func() { in.err = err; close(in.failed) })
}

// span returns how many orders were handled so far, and the time from the first of them to the last.
func (in *inbox) span() (n int, d time.Duration) {
	var first, last int64
	for i := range in.at {
		at := in.at[i].Load()
		if at == 0 {
			continue
		}
		if n++; first == 0 || at < first {
			first = at
		}
		last = max(last, at)
	}
	return n, time.Duration(last - first)
}

// check returns an error if orders were handled more than once, or were never sent.
func (in *inbox) check() error {
	if again, strangers := in.again.Load(), in.strangers.Load(); again > 0 || strangers > 0 {
		return fmt.Errorf("%d orders were handled again, %d were never sent", again, strangers)
	}
	return nil
}
