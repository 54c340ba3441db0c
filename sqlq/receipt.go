package sqlq

import "github.com/sqlq/sqlq/sqlq/internal/sending"

// Receipt says what a send did; see [WithReceipt] and [Client.SendBatch].
type Receipt struct {
	ID    ID     // of the message, and of all copies of an event. Zero: middleware has dropped the message
	Queue string // where a command goes; "" for an event
	// Copies is how many were stored, delayed ones too: of a command 1, of an event one for each queue that is subscribed to it, so
	// none is possible. It is 0 until they are stored, and of what is sent through a delivery, which is stored after its handler.
	Copies int
}

// WithReceipt has the receipt of the message written to *into, before Send, SendTx, Publish or PublishTx returns. Where nobody knows
// whether the message was stored, after a lost connection or the end of ctx, it has the id all the same, under which the message can be
// sent again (WithID). SendMany refuses it: SendBatch returns the receipts of many.
// Default: none. Unit: where to write it. Cost: none.
func WithReceipt(into *Receipt) SendOption { return func(o *sendOptions) { o.receipt = into } }

// write writes the receipt of an envelope while it is stored. in is the delivery whose handler sends it: then it is only gathered.
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
