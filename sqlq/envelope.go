package sqlq

import (
	"context"
	"fmt"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/sending"
	"github.com/sqlq/sqlq/sqlq/internal/session"
)

// Envelope is one message of a batch, with options of its own.
type Envelope struct {
	Message Message      // an Event is published, any other is sent
	Options []SendOption // its own
	Publish bool         // for a Raw, whose Go type does not say it: publish it
}

// BatchError is the error of SendBatch or SendBatchTx about one envelope. Nothing of the batch was stored.
type BatchError struct {
	Index int   // of the envelope, from 0: of several for a queue that cannot have them the first
	Err   error // as of Send or Publish
}

// Error implements error.
func (e *BatchError) Error() string { return fmt.Sprintf("batch[%d]: %v", e.Index, e.Err) }

// Unwrap returns Err.
func (e *BatchError) Unwrap() error { return e.Err }

// SendBatch sends commands and publishes events, each with its own options, in one transaction: all of them or none. It returns a receipt
// for each envelope, in their order. Commands for one queue, and events of one type, are stored in the order of the batch, apart from
// delayed ones. Two envelopes may have one id (WithID), as two sends may.
//
// Errors are those of Send and Publish; what is wrong with one envelope is a [BatchError], and then there are no receipts. After an
// error of the database's the receipts have the ids; where nobody knows whether the batch was stored it can be sent again under them.
// Inside of a handler every envelope needs Immediately.
func (c *Client) SendBatch(ctx context.Context, batch []Envelope) ([]Receipt, error) {
	if c.closedTo(ctx) {
		return nil, fmt.Errorf("send batch: %w", ErrClosed)
	}
	if isOfHandler(ctx) {
		for i := range batch {
			if err := c.usable(ctx, "send batch", batch[i].Options); err != nil {
				return nil, &BatchError{Index: i, Err: err}
			}
		}
	}
	b, err := c.enclosedBatch(ctx, batch)
	if err != nil {
		return nil, err
	}
	const patience = 5 // subscribers that go one after the other while their events are published
	err = c.sender.SendAll(ctx, b.all)
	refusing := c.refusing(ctx, b.all, err)
	for i := 0; i < patience && session.State(err) == session.UndefinedTable && refusing == "" && b.hasEvents(); i++ {
		err = c.sender.SendAll(ctx, b.all)
		refusing = c.refusing(ctx, b.all, err)
	}
	return b.stored(err, refusing)
}

// SendBatchTx is SendBatch as part of the caller's transaction; see SendTx and PublishTx. In a transaction of pgx it takes one round trip,
// or two where receivers sleep.
func (c *Client) SendBatchTx(ctx context.Context, tx DBTX, batch []Envelope) ([]Receipt, error) {
	if c.closedTo(ctx) {
		return nil, fmt.Errorf("send batch: %w", ErrClosed)
	}
	if err := checkTransaction(tx); err != nil {
		return nil, fmt.Errorf("send batch: %w", err)
	}
	b, err := c.enclosedBatch(ctx, batch)
	if err != nil {
		return nil, err
	}
	err = c.sender.SendAllIn(ctx, tx, b.all, !c.config.NoNotify)
	return b.stored(err, c.refusing(ctx, b.all, err))
}

// enclosed are messages that are to be stored together.
type enclosed struct {
	client   *Client
	n        int // messages that the call was given
	all      []sending.Envelope
	contexts []context.Context // of each, where somebody observes

	// Of a batch:
	batch    []Envelope
	at       []int // where in the batch each is: middleware may drop or double some
	receipts []Receipt
	copies   []int // of each of the batch
}

// add encloses the i-th message.
func (b *enclosed) add(ctx context.Context, i int, m Message, publish bool, options []SendOption) error {
	return b.client.enclose(ctx, m, publish, nil, options, func(ctx context.Context, e sending.Envelope) error {
		if b.batch != nil {
			b.receipts[i] = Receipt{ID: ID(e.ID), Queue: e.Queue}
			e.Copies = &b.copies[i]
			b.at = append(b.at, i)
		}
		b.all = append(b.all, e)
		if b.client.config.observing != nil {
			b.contexts = append(b.contexts, ctx)
		}
		return nil
	})
}

// tell tells the observer how it ended, and returns the error.
func (b *enclosed) tell(err error) error {
	for i, ctx := range b.contexts {
		_ = b.client.config.observing.sent(ctx, &b.all[i], b.n, nil, err)
	}
	return err
}

// enclosedBatch encloses all of a batch, or says which of it cannot be.
func (c *Client) enclosedBatch(ctx context.Context, batch []Envelope) (*enclosed, error) {
	b := &enclosed{client: c, n: len(batch), batch: batch, all: make([]sending.Envelope, 0, len(batch)), at: make([]int, 0, len(batch)),
		receipts: make([]Receipt, len(batch)), copies: make([]int, len(batch))}
	for i := range batch {
		e := &batch[i]
		_, event := e.Message.(Event)
		if err := b.add(ctx, i, e.Message, event || e.Publish, e.Options); err != nil {
			return nil, b.tell(&BatchError{Index: i, Err: err})
		}
	}
	return b, nil
}

// stored ends a batch: with its receipts, and with the database's error, if there is one. refusing is the queue that it is about.
func (b *enclosed) stored(err error, refusing string) ([]Receipt, error) {
	if err != nil {
		for i := range b.all {
			if e := &b.all[i]; refusing != "" && e.Queue == refusing {
				return b.receipts, b.tell(&BatchError{Index: b.at[i], Err: b.client.sendError(err, *e)})
			}
		}
		return b.receipts, b.tell(b.client.sendError(err, b.all...))
	}
	for i := range b.receipts {
		b.receipts[i].Copies = b.copies[i]
		if into := receiptOf(b.batch[i].Options); into != nil {
			*into = b.receipts[i]
		}
	}
	return b.receipts, b.tell(nil)
}

func (b *enclosed) hasEvents() bool {
	for i := range b.all {
		if b.all[i].Queue == "" {
			return true
		}
	}
	return false
}

// refusingWithin bounds how long an error waits for the name of the queue that it is about.
const refusingWithin = 2 * time.Second

// refusing returns the first queue that is missing, or that the role may not send to, where that is what the database says; else
// "".
func (c *Client) refusing(ctx context.Context, all []sending.Envelope, err error) (queue string) {
	if state := session.State(err); state != session.UndefinedTable && state != session.InsufficientPrivilege {
		return ""
	}
	queues := queuesOf(all)
	if len(queues) == 0 {
		return ""
	}
	// The pool may have no connection left where the caller's transaction has one.
	ctx, cancel := context.WithTimeout(ctx, refusingWithin)
	defer cancel()
	queue, err = c.store.Sending.Refusing(ctx, c.pool, queues)
	if err != nil {
		return ""
	}
	return queue
}
