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
	Message Message      // an Event is published, any other message is sent
	Options []SendOption // for this message only
	Publish bool         // publish it: for a Raw, whose Go type does not say whether it is an event
}

// BatchError is the error of SendBatch or SendBatchTx about one envelope. Nothing of the batch was stored.
type BatchError struct {
	Index int   // of the envelope, from 0; if a queue refuses several, of the first of them
	Err   error // as Send or Publish would return it
}

// Error implements error.
func (e *BatchError) Error() string { return fmt.Sprintf("batch[%d]: %v", e.Index, e.Err) }

// Unwrap returns Err.
func (e *BatchError) Unwrap() error { return e.Err }

// SendBatch sends commands and publishes events, each with its own options, in one transaction: all of them or none. It returns a
// receipt for each envelope, in the same order. Commands to one queue, and events of one type, are stored in the order of the batch,
// except for delayed ones. Two envelopes may have the same id (WithID), as two sends may.
//
// It returns the errors of Send and Publish. An error about one envelope is a [BatchError]; if the envelope is invalid there are no
// receipts. After an error of the database the receipts have the ids: if the outcome is unknown, the batch can be sent again with
// them. Inside a handler every envelope needs Immediately.
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
	const patience = 5 // subscribers that are dropped one after the other while their events are published
	err = c.sender.SendAll(ctx, b.all)
	refusing := c.refusing(ctx, b.all, err)
	for i := 0; i < patience && session.State(err) == session.UndefinedTable && refusing == "" && b.hasEvents(); i++ {
		err = c.sender.SendAll(ctx, b.all)
		refusing = c.refusing(ctx, b.all, err)
	}
	return b.stored(err, refusing)
}

// SendBatchTx is SendBatch as part of the caller's transaction; see SendTx and PublishTx. In a transaction of pgx it takes one round
// trip, or two if receivers sleep.
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

// enclosed are the messages of one call, which are stored together.
type enclosed struct {
	client   *Client
	n        int // how many messages the call was given
	all      []sending.Envelope
	contexts []context.Context // of each, if there is an Observer

	// For a batch:
	batch    []Envelope
	at       []int // the index in the batch of each: middleware may drop or double some
	receipts []Receipt
	copies   []int // of each envelope of the batch
}

// add encloses message i.
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

// tell tells the Observer the result, and returns the error.
func (b *enclosed) tell(err error) error {
	for i, ctx := range b.contexts {
		_ = b.client.config.observing.sent(ctx, &b.all[i], b.n, nil, err)
	}
	return err
}

// enclosedBatch encloses the messages of a batch. The error names the first that cannot be sent.
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

// stored returns the receipts of a batch, and the database's error, if there is one. refusing is the queue that the error is about.
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

// refusingWithin limits how long an error waits for the name of the queue that it is about.
const refusingWithin = 2 * time.Second

// refusing returns the first queue that is missing, or that the role may not send to, if that is the database's error; otherwise
// "".
func (c *Client) refusing(ctx context.Context, all []sending.Envelope, err error) (queue string) {
	if state := session.State(err); state != session.UndefinedTable && state != session.InsufficientPrivilege {
		return ""
	}
	queues := queuesOf(all)
	if len(queues) == 0 {
		return ""
	}
	// The pool may have no free connection while the caller's transaction has one.
	ctx, cancel := context.WithTimeout(ctx, refusingWithin)
	defer cancel()
	queue, err = c.store.Sending.Refusing(ctx, c.pool, queues)
	if err != nil {
		return ""
	}
	return queue
}
