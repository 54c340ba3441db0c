// Package handmade is the door through which package sqlqtest makes a delivery by hand, without a database. Package sqlq
// opens it, and so need not export what only tests want.
package handmade

import "github.com/sqlq/sqlq/sqlq/internal/store"

// Ready makes a *sqlq.Incoming that was filled in by hand one that a handler can send through, as a Client with that
// sqlq.Config would let it, and returns what reads what was sent so far. A command without a route goes to the queue
// otherwise; "": it has an error. The types of package sqlq are any here, because it imports this package.
var Ready func(incoming, config any, otherwise string) (sent func() []Sent, err error)

// Encode makes the body of a message, as a sender with that sqlq.Config would, and names its content type.
var Encode func(config, message any) (body []byte, contentType string, err error)

// Decode reads a body of a content type into a pointer to a message, as a receiver with that sqlq.Config would.
var Decode func(config any, contentType string, body []byte, into any) error

// Decide returns the sqlq.Decision that a sqlq.RetryPolicy makes for an attempt that has ended with that error, or why the policy, or
// what its Decide returns, is not valid.
var Decide func(policy any, attempt int, err error) (decision any, fault error)

// Sent is a message on its way out.
type Sent struct {
	Queue string // "" for an event
	store.Outgoing
}
