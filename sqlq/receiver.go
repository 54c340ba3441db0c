package sqlq

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

const (
	// minHold is how long a batch is held before slow messages in it are leased for the sake of idle slots.
	minHold = 5 * time.Millisecond
	// fetchBytes bounds the bodies that a fetch brings, in bytes, but for a single larger one.
	fetchBytes = 16 << 20
)

// receiver is one receive connection and the goroutine that owns it. It goes round: settle the batch in hand and fetch
// the next, in one round trip; let the handlers run while the transaction holds the rows; settle.
type receiver struct {
	run     *runner
	conn    *conn
	cut     chan struct{} // settle what is finished, somebody needs the connection
	retry   backoff
	trouble backoff                  // after a settle that the server could not do
	warned  bool                     // that the database cannot be reached
	pid     atomic.Uint32            // of the connection's session; 0: none
	socket  atomic.Pointer[net.Conn] // instead, where the session is a pooler's
	fetch   []store.Message          // room for what a fetch brings, used again

	held     atomic.Pointer[batch]    // whose handlers run; nil: none
	handling atomic.Pointer[delivery] // whose HandleTx handler runs; nil: none
}

// receive serves the schedule until it is closed.
func (r *receiver) receive() {
	defer r.disconnect()
	for {
		w, ok := r.run.schedule.next()
		if !ok {
			return
		}
		r.serve(w)
	}
}

// serve does one piece of work after another for as long as there is some.
func (r *receiver) serve(w work) {
	var held *batch
	for more := true; more || held != nil; {
		if held != nil && !held.ended && (r.conn.IsClosed() || r.conn.PgConn().TxStatus() == 'I') {
			if !r.conn.IsClosed() {
				r.unclaim(held)
			}
			r.abandon(held, errLostTransaction)
			held = nil
			continue
		}
		// What is finished has a transaction of its own, and what a fetch removes must not depend on another's settle.
		if held != nil && (len(w.finished) > 0 || w.removes) {
			_, err := r.round(held, work{in: held.in})
			held = nil
			if err != nil {
				r.putBack(w)
				r.failed(work{in: w.in}, err)
				return
			}
		}
		if len(w.finished) > 0 {
			r.settleLeased(w.in, w.finished)
			w.finished = nil
		}
		if err := r.connect(); err != nil {
			r.putBack(w)
			r.unreachable(err)
			return
		}
		next, err := r.round(held, w)
		if err != nil {
			r.failed(w, err)
			return
		}
		if held = next; held != nil {
			r.hold(held)
		}
		w, more = r.run.schedule.poll()
	}
}

// errLostTransaction is what became of a batch whose connection died, or whose transaction ended, while it was held.
var errLostTransaction = errors.New("the receive transaction is gone")

// putBack returns work that was not begun.
func (r *receiver) putBack(w work) {
	if len(w.finished) > 0 {
		w.in.settledLeases(w.finished, false)
	}
	if w.n > 0 {
		w.in.notFetched(w)
		w.in.endFetch(w, false)
	}
}

// notFetched has the next fetch begin where one failed, or was not begun.
func (in *instance) notFetched(w work) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.start.freed(w.after + 1)
}

// endFetch ends what wants began: what came, if anything, is in hand. Unless a batch is now handled on the connection,
// the connection counts no more as a slot of HandleTx handlers.
func (in *instance) endFetch(w work, handles bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.fetching--
	if w.removes {
		in.asked -= w.n
	}
	if w.leftmost {
		now := time.Now()
		in.start.scanned(now, now.Sub(w.began))
	}
	if in.hasTx && !handles {
		in.busyTx--
	}
}

// endTx ends what endFetch left: the batch's HandleTx handlers are done.
func (in *instance) endTx() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.hasTx {
		in.busyTx--
	}
}

// round settles the held batch, if there is one, commits, and fetches what w asks for, if anything: all in one round
// trip. It returns the new batch when it holds rows. A settle that fails has been taken care of when round returns.
func (r *receiver) round(held *batch, w work) (*batch, error) {
	ctx, cancel := r.timeout()
	defer cancel()
	pipeline := &pgx.Batch{}
	if held != nil && held.ended {
		held.in.leased(held.in.cut(held), nil, 0)
		r.settleOneByOne(held, nil)
		held.in.release(held)
		held = nil
		if err := r.connect(); err != nil {
			return nil, err
		}
	}
	var s *settlement
	settled := held == nil
	if held != nil {
		var err error
		if s, err = r.settlementOf(held); err != nil {
			return nil, err
		}
		if len(held.inTx) > 0 {
			queueSettleSettings(pipeline, held.savepoint)
		}
		if err := s.queue(pipeline); err != nil {
			return nil, err
		}
		pipeline.Queue(`COMMIT`).Exec(func(tag commandTag) error {
			settled = true
			return committed(tag)
		})
	}
	ms := r.fetch[:0]
	if held == nil && w.n > 0 {
		r.learnLow(ctx, &w)
	}
	if w.n > 0 {
		r.conn.queueBegin(pipeline)
		switch {
		case w.removes: // what its commit does not answer for is not handled
			r.run.client.store.FetchRemoved(pipeline, w.in.endpoint.Name, w.after, w.n, math.MaxInt32, &ms)
			pipeline.Queue(`COMMIT`).Exec(committed)
		case w.byLease:
			r.run.client.store.FetchLeased(pipeline, w.in.endpoint.Name, w.by, w.after, w.n, math.MaxInt32, &ms)
			pipeline.Queue(`COMMIT`)
		default:
			r.run.client.store.FetchHeld(pipeline, w.in.endpoint.Name, w.after, w.n, max(fetchBytes/w.n, 32<<10), &ms)
		}
	}
	var err error
	if pipeline.Len() > 0 {
		err = r.conn.SendBatch(ctx, pipeline).Close()
	}
	if held != nil {
		r.settledBatch(ctx, held, s, settled, err)
		held.in.release(held)
		if !settled {
			r.putBack(w)
			return nil, nil
		}
	}
	if err != nil {
		return nil, err
	}
	r.retry.reset()
	r.warned = false
	if w.n == 0 {
		return nil, nil
	}
	defer func() {
		clear(ms)
		r.fetch = ms
	}()
	return r.take(ctx, w, ms)
}

// take makes a batch of fetched messages and hands it to the instance.
func (r *receiver) take(ctx context.Context, w work, ms []store.Message) (*batch, error) {
	w.in.present()
	var high int64
	if len(ms) > 0 {
		high = ms[len(ms)-1].Seq
	}
	w.in.fetched(w, len(ms), high)
	if len(ms) == 0 {
		w.in.endFetch(w, false)
		if w.byLease || w.removes {
			return nil, nil
		}
		if err := r.exec(ctx, `ROLLBACK`); err != nil {
			r.lost(err)
		}
		return nil, nil
	}
	whole := len(ms)
	if !w.byLease && !w.removes {
		var err error
		if ms, err = r.loadBodies(ctx, w.in, ms); err != nil {
			return nil, err
		}
	}
	var claims map[[16]byte]store.Claim
	if w.in.endpoint.Deduplicate > 0 {
		var err error
		if claims, err = r.claim(ctx, w, ms); err != nil {
			w.in.returnUnclaimed(w, ms)
			return nil, err
		}
	}
	b := newBatch(w.in, ms, w, claims)
	b.freed = b.freed || len(ms) < whole
	w.in.add(b)
	w.in.endFetch(w, true)
	r.run.schedule.signal() // there may be more, which nobody else looked for meanwhile
	if w.removes {
		return nil, nil
	}
	if !w.byLease {
		return b, nil
	}
	for i, d := range b.inTx {
		if r.run.schedule.isDraining() {
			r.giveBack(w.in, b.inTx[i:])
			break
		}
		r.handleLeasedTx(w.in, d)
	}
	w.in.endTx()
	return nil, nil
}

// loadBodies fetches the bodies that were too large to come with the batch, up to fetchBytes together; the messages
// beyond are left to the next fetch.
func (r *receiver) loadBodies(ctx context.Context, in *instance, ms []store.Message) ([]store.Message, error) {
	total := 0
	for i := range ms {
		total += ms[i].Size
		if i > 0 && total > fetchBytes {
			return ms[:i], nil
		}
		if ms[i].Body == nil {
			var err error
			if ms[i].Body, err = r.run.client.store.FetchBody(ctx, r.conn, store.From{Queue: in.endpoint.Name}, ms[i].Seq); err != nil {
				return nil, err
			}
		}
	}
	return ms, nil
}

// hold keeps the transaction open while the handlers run: until they are done, at the latest until the hold limit, and
// not longer than minHold when somebody needs the connection. HandleTx handlers run here, one after the other.
func (r *receiver) hold(b *batch) {
	limit := r.run.client.config.HoldLimit
	r.run.schedule.hold(r)
	defer r.run.schedule.unhold(r)
	r.held.Store(b)
	defer r.held.Store(nil)
	select {
	case <-r.cut:
	default:
	}
	if len(b.inTx) > 0 {
		r.handleTx(b)
	}
	b.in.endTx()
	if r.run.schedule.isDraining() { // its cut may have come too early
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

// number is the instance's number in the instance table.
func (in *instance) number() int32 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.id
}

// failed deals with an error of a round that settled what was held, or held nothing.
func (r *receiver) failed(w work, err error) {
	if w.n > 0 {
		w.in.notFetched(w)
		w.in.endFetch(w, false)
		w.in.wake()
	}
	if connectionLost(err) {
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

// lost gives the connection up. Another one may reach another server.
func (r *receiver) lost(err error) {
	r.disconnect()
	r.run.restart()
	r.unreachable(err)
}

// unreachable says once that the database cannot be reached, and waits a little.
func (r *receiver) unreachable(err error) {
	if !r.warned {
		r.warned = true
		r.run.client.log.Warn("sqlq: lost the database, trying again", "err", err)
	}
	r.retry.wait(r.run.hardCtx)
}

func (r *receiver) connect() error {
	if r.conn != nil && !r.conn.IsClosed() {
		return nil
	}
	var err error
	if r.conn, err = r.run.client.connect(r.run.hardCtx, forReceiving); err != nil {
		return err
	}
	if pg := r.conn.PgConn(); r.conn.pooled {
		socket := pg.Conn()
		r.socket.Store(&socket)
	} else {
		r.pid.Store(pg.PID())
	}
	return nil
}

func (r *receiver) disconnect() {
	if r.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	r.conn.Close(ctx)
	r.conn = nil
	r.pid.Store(0)
	r.socket.Store(nil)
}

// rollback ends whatever transaction there is.
func (r *receiver) rollback() {
	if r.conn == nil || r.conn.IsClosed() || r.conn.PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := r.timeout()
	defer cancel()
	if err := r.exec(ctx, `ROLLBACK`); err != nil {
		r.disconnect()
	}
}

func (r *receiver) exec(ctx context.Context, sql string) error {
	_, err := r.conn.Exec(ctx, sql)
	return err
}

// timeout bounds a round trip of the library's own: a network that hangs must not hold a receiver for ever.
func (r *receiver) timeout() (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.run.hardCtx, 30*time.Second)
}

// committed refuses a COMMIT that the server turned into a rollback, because the transaction had failed before.
func committed(tag commandTag) error {
	if tag.String() != "COMMIT" {
		return errors.New("the server rolled the transaction back instead of committing it")
	}
	return nil
}
