package sqlq

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

const (
	// minHold is how long a batch is held before slow messages in it are leased for the sake of idle slots.
	minHold = 5 * time.Millisecond
	// fetchBytes bounds the bodies that a fetch brings, in bytes, but for a single larger one.
	fetchBytes = 16 << 20
	// fetchWanted is how many bytes a fetch asks for, by the mean of what came: the batch before it is let go of only when it has
	// come.
	fetchWanted = fetchBytes / 2
	// fetchInline is what a body may have at least to come along with the fetch, in bytes; larger ones are read one by one.
	fetchInline = 32 << 10
)

// receiver is a link and the goroutine that owns it. That goroutine alone uses the fields that are not atomic, with
// cut for a channel; a HandleTx handler's goroutine (despiteExits) uses the link while it waits. It goes round: settle the batch in
// hand and fetch the next, in one round trip; let the handlers run while the transaction holds the rows; settle.
type receiver struct {
	link
	spare bool            // does only what others cannot do, because they run HandleTx handlers
	cut   chan struct{}   // settle what is finished, somebody needs the connection
	fetch []store.Message // room for what a fetch brings, used again
	gates []gate          // likewise, for what it must pass

	held     atomic.Pointer[batch]    // whose handlers run; nil: none
	handling atomic.Pointer[delivery] // whose HandleTx handler runs; nil: none
	replaced atomic.Bool              // that handler does not end, and another receiver has taken this one's place
	ended    chan struct{}            // closed when it has returned
}

func newReceiver(r *runner, spare bool) *receiver {
	return &receiver{link: link{run: r}, spare: spare, cut: make(chan struct{}, 1), ended: make(chan struct{})}
}

// receive serves the dispatcher until it is closed, or the receiver was replaced.
func (r *receiver) receive() {
	defer close(r.ended)
	defer r.disconnect()
	for {
		w, ok := r.next()
		if !ok {
			return
		}
		if r.serve(w); r.replaced.Load() {
			r.run.dispatcher.leftBehind(-1)
			return
		}
	}
}

func (r *receiver) next() (work, bool) {
	if r.spare {
		return r.run.dispatcher.nextSpare()
	}
	return r.run.dispatcher.next()
}

// serve does one piece of work after another for as long as there is some.
func (r *receiver) serve(w work) {
	var held *batch
	for more := true; more || held != nil; {
		if held != nil && !held.ended && (r.conn.IsClosed() || r.conn.PgConn().TxStatus() == 'I') {
			if !r.conn.IsClosed() {
				r.unclaim(held)
			}
			r.endOf(held).abandon(errLostTransaction)
			held = nil
			continue
		}
		// What is finished has a transaction of its own, and what a fetch removes, or must ask before, is not to depend on
		// another's settle. Where handlers may have left more in the session than their transaction, nothing is fetched before
		// that was looked at.
		if held != nil && (len(w.finished) > 0 || w.n > 0 && w.custody.needsOwn(&w) || held.tx != nil && held.tx.leaves()) {
			_, err := r.round(held, &work{in: held.in})
			if err == nil {
				r.leaveSession(held.tx)
			}
			held = nil
			if err != nil {
				r.putBack(w)
				r.failed(work{in: w.in}, err)
				return
			}
		}
		if len(w.finished) > 0 {
			settleAll(&r.link, w.in, w.finished)
			w.finished = nil
		}
		if r.replaced.Load() {
			r.putBack(w)
			return
		}
		if err := r.connect(); err != nil {
			r.putBack(w)
			r.unreachable(err)
			return
		}
		next, err := r.round(held, &w)
		if err != nil {
			r.failed(w, err)
			return
		}
		if held = next; held != nil {
			r.hold(held)
		}
		w, more = r.run.dispatcher.poll(r.spare)
	}
}

func (r *receiver) endOf(b *batch) heldBatch { return heldBatch{&r.link, b} }

// errLostTransaction is what became of a batch whose connection died, or whose transaction ended, while it was held.
var errLostTransaction = errors.New("the receive transaction is gone")

// putBack returns work that was not begun.
func (r *receiver) putBack(w work) {
	if len(w.finished) > 0 {
		w.in.hand.putOff(w.finished)
	}
	if w.n > 0 {
		w.notFetched()
		w.in.endFetch(w, false)
	}
}

// round settles the held batch, if there is one, commits, and fetches what w asks for, if anything: all in one round
// trip. It returns the new batch when it holds rows. A settle that fails has been taken care of when round returns.
func (r *receiver) round(held *batch, w *work) (*batch, error) {
	asked := time.Now()
	ctx, cancel := r.timeout()
	defer cancel()
	if held != nil && held.ended {
		r.endOf(held).settleEnded()
		held = nil
		if err := r.connect(); err != nil {
			return nil, err
		}
	}
	pipeline := &pgx.Batch{}
	var s *settlement
	committed := false
	var ended error
	if held != nil && held.tx != nil {
		ended = held.tx.end(ctx)
	}
	if held != nil {
		var err error
		if s, err = r.queueSettle(pipeline, held, &committed); err != nil {
			return nil, err
		}
		w.takeFreed(held)
	}
	ms := r.fetch[:0]
	if held == nil && w.n > 0 {
		w.in.source.learnLow(ctx, r.conn, r.run.client.store, w.in.endpoint.Name, &w.stretch)
	}
	if w.n > 0 {
		if err := w.custody.prepare(ctx, &r.link, w); err != nil {
			return nil, err
		}
		r.queueFetch(pipeline, w, &ms)
	}
	var err error
	if err = ended; pipeline.Len() > 0 && err == nil {
		err = r.conn.SendBatch(ctx, pipeline).Close()
	}
	if held != nil {
		r.endOf(held).settled(s, committed, err)
		if committed && held.tx != nil {
			held.tx.noteChange()
		}
		held.release(settled)
		if !committed {
			r.putBack(*w)
			return nil, nil
		}
	}
	if err != nil {
		return nil, err
	}
	r.retry.Reset()
	r.run.outage.End(session.Receive, asked)
	if w.n == 0 {
		return nil, nil
	}
	defer func() {
		clear(ms)
		r.fetch = ms
	}()
	return r.take(ctx, w, ms)
}

// queueSettle adds the end of a held batch to a round trip; settled is set when it has been committed.
func (r *receiver) queueSettle(pipeline *pgx.Batch, held *batch, settled *bool) (*settlement, error) {
	s := r.endOf(held).settlement()
	if held.tx != nil {
		held.tx.queueEnd(pipeline)
	}
	if err := s.queue(pipeline); err != nil {
		return nil, err
	}
	pipeline.Queue(`COMMIT`).Exec(func(tag pgconn.CommandTag) error {
		err := committed(tag)
		*settled = err == nil
		return err
	})
	return s, nil
}

// queueFetch adds the fetch that w asks for to a round trip.
func (r *receiver) queueFetch(pipeline *pgx.Batch, w *work, into *[]store.Message) {
	st, queue := r.run.client.store, w.in.endpoint.Name
	r.conn.QueueBeginReceive(pipeline)
	if w.reads {
		st.Low.Given(pipeline, queue, &w.given)
		st.Tables.WritersOf(pipeline, queue, &w.writers)
	}
	where := w.where()
	where.Leave = w.leave
	bounds := store.Bounds{Inline: max(fetchWanted/w.n, fetchInline), Total: fetchBytes, Body: r.run.client.config.MaxBody}
	w.custody.queueFetch(&r.link, pipeline, w, where, bounds, into)
}

// take makes a batch of fetched messages and hands it to the instance.
func (r *receiver) take(ctx context.Context, w *work, ms []store.Message) (*batch, error) {
	w.in.present()
	ms, stay := withoutStaying(ms)
	numbers, rest := spansOf(ms), len(stay) > 0
	w.in.fetched(w, ms, numbers, rest)
	w.in.client.config.observing.fetched(w, ms)
	w.custody.stayed(&r.link, w.in, stay)
	if len(ms) == 0 {
		w.in.endFetch(*w, false)
		w.custody.foundNone(ctx, &r.link, w)
		return nil, nil
	}
	whole := len(ms)
	ms, tooLarge, err := w.custody.readRest(ctx, &r.link, w, ms)
	gates := r.gatesOf(w)
	defer clear(gates)
	for i := 0; i < len(gates) && err == nil; i++ {
		err = gates[i].look(ctx, &r.link, w, ms)
	}
	if err != nil {
		w.custody.unready(w.in, w, ms)
		return nil, err
	}
	b := newBatch(w.in, ms, w, gates, tooLarge)
	b.fetched = numbers
	b.freed = b.freed || len(ms) < whole
	w.in.add(b)
	w.in.endFetch(*w, true)
	r.run.dispatcher.signal() // there may be more, which nobody else looked for meanwhile
	return w.custody.begin(r, w, b), nil
}

// hold keeps the transaction open while the handlers run: until they are done, at the latest until the hold limit, and
// not longer than minHold when somebody needs the connection. HandleTx handlers run here, one after the other.
func (r *receiver) hold(b *batch) {
	limit := r.run.client.config.HoldLimit
	r.held.Store(b)
	defer r.held.Store(nil)
	r.run.dispatcher.hold(r)
	defer r.run.dispatcher.unhold(r)
	select {
	case <-r.cut:
	default:
	}
	if len(b.inTx) > 0 {
		r.handleTx(b)
	}
	b.in.endTx()
	if b.ended || r.conn.IsClosed() {
		return // others can have what is still being handled
	}
	if b.in.phase.isDraining() || b.in.endpoint.pulling != nil { // its cut may have come too early; or it is left to callers when they end
		limit = min(minHold, limit)
	}
	timer := time.NewTimer(max(0, limit-time.Since(b.began)))
	defer timer.Stop()
	for {
		select {
		case <-b.done:
			return
		case <-timer.C:
			return
		case <-r.cut:
			// Asked again, it waits out minHold and no longer.
			timer.Reset(max(0, min(minHold, limit)-time.Since(b.began)))
		}
	}
}

// failed deals with an error of a round that settled what was held, or held nothing.
func (r *receiver) failed(w work, err error) {
	if w.n > 0 {
		w.notFetched()
		w.in.endFetch(w, false)
		w.in.wake()
	}
	if session.Lost(err) {
		if w.n > 0 {
			w.in.lookAgain(w.after + 1)
		}
		r.lost(err)
		return
	}
	r.rollback()
	if w.in != nil {
		w.in.missing(fmt.Errorf("fetch from queue %q: %w", w.in.endpoint.Name, err))
	}
}
