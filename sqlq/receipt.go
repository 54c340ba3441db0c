package sqlq

import "github.com/sqlq/sqlq/sqlq/internal/sending"

// Receipt is the result of a send; see [WithReceipt] and [Client.SendBatch].
type Receipt struct {
	ID    ID     // of the message, and of all copies of an event. Zero: middleware has dropped the message
	Queue string // where a command goes; "" for an event
	// Copies is how many copies were stored, delayed ones included: 1 for a command, and for an event one for each subscribed queue,
	// which may be none. It is 0 if nothing was stored, and if the message is sent through a delivery, which stores it after the
	// handler has returned.
	Copies int
}

// WithReceipt writes the receipt of the message to *into, before Send, SendTx, Publish or PublishTx returns. If the outcome is unknown,
// after a lost connection or the end of ctx, the receipt still has the id, with which the message can be sent again (WithID).
// SendMany refuses it: SendBatch returns the receipts of many.
// Default: none. Unit: where to write it. Cost: none.
func WithReceipt(into *Receipt) SendOption { return func(o *sendOptions) { o.receipt = into } }

// write stores an envelope and writes its receipt. in is the delivery whose handler sends it, if one does; then the envelope is only
// gathered.
func (r *Receipt) write(e sending.Envelope, in *Incoming, store func(sending.Envelope) error) error {
	*r = Receipt{ID: ID(e.ID), Queue: e.Queue}
	if in != nil {
		return store(e)
	}
	e.Copies = new(int) // not r's own: a send that ctx has ended may still be under way
	err := store(e)
	if err == nil {
		r.Copies = *e.Copies
	}
	return err
}
