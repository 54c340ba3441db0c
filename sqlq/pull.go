package sqlq

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Received is a message that [Client.Receive] has returned, undecoded. It is the caller's until one of Done, Fail and GiveBack is called,
// for as long as that takes and in any order, from any goroutine: the heartbeat of the process keeps it from others. What Send and
// Publish send is stored with Done, in the same transaction, and not at all with Fail and GiveBack.
//
// A Received that is forgotten stays in hand until the Client is closed.
type Received struct {
	*Incoming

	pulling *pulling
	asked   atomic.Bool  // one of the three was called
	verdict chan error   // of one place: what the handler returns
	wanted  atomic.Int32 // the verdict that was asked for
	over    chan struct{}
	result  error // once over is closed
}

// Decode reads the body into a pointer to a message, as a handler would have it, with the codec of its content type. Error:
// ErrUndecodable, with which the message may be given to Fail.
func (r *Received) Decode(into any) error { return r.Incoming.decode(into) }

// Done ends a message as handled: it is removed. It returns when that is committed, and what Send and Publish have sent with it.
//
// Errors: ErrSettled, if Done, Fail or GiveBack was called before. ErrLeaseLost, if the message was not the caller's any more. That of
// the database, if it refuses to store the end; then the message is retried, or fails, with that error. That of ctx, if it
// ends before the result is known: the settle goes on.
func (r *Received) Done(ctx context.Context) error { return r.settle(ctx, "done", complete, nil) }

// Fail ends the attempt with an error that is not nil, as a handler's error does: the message is retried later, as the default
// [RetryPolicy] says, or fails and goes to the error table. [Unrecoverable] and [RetryAfter] apply. Fail returns when that is committed;
// its errors are those of Done.
func (r *Received) Fail(ctx context.Context, err error) error {
	if err == nil {
		return fmt.Errorf("fail message %v: the error is nil: call Done if the message was handled", r.Incoming.stored.id)
	}
	return r.settle(ctx, "fail", retryLater, err)
}

// GiveBack returns the message to its queue, for any receiver, after that time or, with 0, at once. No attempt is counted. It returns when
// that is committed; its errors are those of Done.
func (r *Received) GiveBack(ctx context.Context, after time.Duration) error {
	return r.settle(ctx, "give back", giveBack, GiveBack(after, ""))
}

// settle has the handler return err, and waits until that is committed.
func (r *Received) settle(ctx context.Context, what string, wanted verdict, err error) error {
	id := r.Incoming.stored.id
	if !r.asked.CompareAndSwap(false, true) {
		return fmt.Errorf("%s message %v: %w", what, id, ErrSettled)
	}
	r.wanted.Store(int32(wanted))
	r.verdict <- err
	select {
	case <-r.over:
	case <-ctx.Done():
		select {
		case <-r.over:
		default:
			return fmt.Errorf("%s message %v: whether that was committed is not known yet; it goes on: %w", what, id, ctx.Err())
		}
	}
	if r.result != nil {
		return fmt.Errorf("%s message %v: %w", what, id, r.result)
	}
	return nil
}

// Receive returns up to n messages of a queue, from 1 to 10,000: as soon as there are any, without waiting for n. While there are none it
// waits, until ctx ends. It is for scripts, tests and consumers that are not loops; everything else is easier with Run, which also has
// transactions (HandleTx), policies and middleware of an endpoint.
//
// Messages are fetched as callers want them, never more. Each is to be ended by one of its methods: [Received.Done],
// [Received.Fail], [Received.GiveBack]. Several calls may wait at the same time, and their messages be outstanding together. The Client
// shares the queue's messages with other processes as an instance of the endpoint of that name: leases, heartbeats, expiry and the error
// table work as for any endpoint, and Config.HandleMiddleware is around each message from here to its end. That instance begins with
// the first Receive of the queue, which costs some round trips, and ends with Close, or when nothing has been outstanding and nobody has
// waited for five seconds. A message that may have killed a process is handed out when no other of the queue is outstanding here.
//
// When ctx ends its error is returned, and no message is held: what was on its way goes back without counting an attempt. With Close,
// waiting calls return ErrClosed, and outstanding messages may be ended for up to Config.DrainTimeout. Then they go back, and a
// later Done returns ErrLeaseLost.
//
// Errors: ErrNoQueue, because Receive creates no queue; ErrAlreadyRunning, if the Client runs an endpoint of that name; ErrInvalidName,
// ErrPermissionDenied, ErrHidden, ErrTooFewConnections, ErrListenURLMismatch, ErrClosed, that of ctx, and those of the database.
func (c *Client) Receive(ctx context.Context, queue string, n int) ([]*Received, error) {
	if n < 1 || n > maxConcurrency {
		return nil, fmt.Errorf("receive from queue %q: %d messages: it must be from 1 to 10,000", queue, n)
	}
	for {
		got, err := c.pulls.receive(ctx, c, queue, n)
		if errors.Is(err, errPullingEnded) {
			continue // it begins anew
		}
		if err != nil {
			return nil, fmt.Errorf("receive from queue %q: %w", queue, err)
		}
		return got, nil
	}
}

func (ps *pulls) receive(ctx context.Context, c *Client, queue string, n int) ([]*Received, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if c.closed.Load() {
		return nil, ErrClosed
	}
	p := ps.of(c, queue)
	select {
	case <-p.begun:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if p.err != nil {
		return nil, p.err
	}
	return p.receive(ctx, n)
}
