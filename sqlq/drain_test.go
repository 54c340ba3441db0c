package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
)

// drained runs an endpoint until its context is cancelled.
type drained struct {
	cancel context.CancelFunc
	ended  chan error
}

func runUntil(c *sqlq.Client, e sqlq.Endpoint) *drained {
	ctx, cancel := context.WithCancel(context.Background())
	d := &drained{cancel, make(chan error, 1)}
	go func() { d.ended <- c.Run(ctx, e) }()
	return d
}

// wait waits for the end of Run and says when it came.
func (d *drained) wait(t *testing.T, within time.Duration) {
	t.Helper()
	select {
	case err := <-d.ended:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(within):
		t.Fatalf("Run goes on after %v", within)
	}
}

// drainSite is a database with two clients that run the endpoint "post", here and there. Letters with a negative number
// stop the handlers here.
type drainSite struct {
	pool        *pgxpool.Pool
	here, there *sqlq.Client
	mu          sync.Mutex
	handled     map[string]int // letters, by place
	stopped     int
	ctxEnded    int
	release     chan struct{}
}

func newDrainSite(t *testing.T, config sqlq.Config) *drainSite {
	t.Helper()
	s := &drainSite{pool: newPool(t), handled: map[string]int{}, release: make(chan struct{})}
	execSQL(t, s.pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['post', 'after']) q`)
	config.Routes = map[string]string{"post.Letter": "post", "post.Hop": "after"}
	config.PollInterval = time.Hour // only wake-ups bring a message
	s.here, s.there = open(t, s.pool, config), open(t, s.pool, config)
	return s
}

func (s *drainSite) endpoint(place string, concurrency int, inTx, heed bool) sqlq.Endpoint {
	handle := func(ctx context.Context, d *sqlq.Incoming, m letter) error {
		if err := d.Send(hop{Left: m.N}); err != nil {
			return err
		}
		if m.N < 0 && place == "here" {
			s.mu.Lock()
			s.stopped++
			s.mu.Unlock()
			if heed {
				select {
				case <-s.release:
				case <-ctx.Done():
					s.mu.Lock()
					s.ctxEnded++
					s.mu.Unlock()
					return ctx.Err()
				}
			}
			<-s.release
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.handled[place]++
		return nil
	}
	e := sqlq.Endpoint{Name: "post", Concurrency: concurrency, Retry: noRetry}
	if inTx {
		e.Handlers = []sqlq.Handler{sqlq.HandleTx(func(ctx context.Context, _ pgx.Tx, d *sqlq.Delivery[letter]) error {
			return handle(ctx, d.Incoming, d.Message)
		})}
	} else {
		e.Handlers = []sqlq.Handler{sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[letter]) error { return handle(ctx, d.Incoming, d.Message) })}
	}
	return e
}

// send sends letters from a to b-1.
func (s *drainSite) send(t *testing.T, a, b int) {
	t.Helper()
	var ms []sqlq.Message
	for n := a; n < b; n++ {
		ms = append(ms, letter{N: n})
	}
	if err := s.here.SendMany(t.Context(), ms); err != nil {
		t.Fatal(err)
	}
}

func (s *drainSite) seen() (here, there, stopped int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handled["here"], s.handled["there"], s.stopped
}

// await waits until so many letters were handled here and there, and so many handlers are stopped.
func (s *drainSite) await(t *testing.T, here, there, stopped int) {
	t.Helper()
	eventually(t, "letters handled", func() (bool, string) {
		h, th, st := s.seen()
		return h == here && th == there && st == stopped, fmt.Sprintf("%d here, %d there, %d stopped; want %d, %d, %d", h, th, st, here, there, stopped)
	})
}

func (s *drainSite) asleep(t *testing.T, want int) {
	t.Helper()
	eventually(t, "receivers asleep", func() (bool, string) {
		n := asleep(t, s.pool, "sqlq", "post")
		return n == want, fmt.Sprint(n, " asleep")
	})
}

// A process that ends lets running handlers finish, and gives what waits in its hands to others: at once, not when the
// last handler is done.
func TestDrainGivesBackWhatWaits(t *testing.T) {
	t.Parallel()
	s := newDrainSite(t, sqlq.Config{HoldLimit: 5 * time.Second, ReceiveConnections: 1})
	here := runUntil(s.here, s.endpoint("here", 2, false, false))
	s.asleep(t, 1)
	s.send(t, 0, 100) // whose handlers are quick, so that it takes many at a time
	s.await(t, 100, 0, 0)
	s.asleep(t, 1)
	s.send(t, -2, 40) // those that block are first
	s.await(t, 100, 0, 2)
	eventually(t, "all in the hands of one process", func() (bool, string) {
		n := count(t, s.pool, `SELECT count(*) FROM (SELECT FROM sqlq.q_post FOR UPDATE SKIP LOCKED) free`)
		return n == 0, fmt.Sprint(n, " free")
	})
	untilAsleep(t, s.pool, "post", func() { run(t, s.there, s.endpoint("there", 2, false, false)) })
	if h, th, _ := s.seen(); h != 100 || th != 0 {
		t.Fatalf("%d handled here, %d there", h, th)
	}
	here.cancel()
	s.await(t, 100, 40, 2) // while the handlers here go on
	select {
	case err := <-here.ended:
		t.Errorf("Run ended before its handlers: %v", err)
	default:
	}
	close(s.release)
	here.wait(t, patience)
	s.await(t, 102, 40, 2)
	eventuallyCount(t, s.pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_post) + (SELECT count(*) FROM sqlq.leased) + (SELECT count(*) FROM sqlq.error)`)
	eventuallyCount(t, s.pool, 142, `SELECT count(*) FROM sqlq.q_after`)
	if n := count(t, s.pool, `SELECT count(*) FROM sqlq.instance WHERE drained_at IS NOT NULL AND crashed_at IS NULL`); n != 1 {
		t.Errorf("%d instances have ended in order, want 1", n)
	}
}

// A handler that heeds its context is told after DrainTimeout, and its message goes back with no attempt spent; one that
// does not heed it is left behind, and what it does then changes nothing. Run ends in either case.
func TestDrainTimeout(t *testing.T) {
	t.Parallel()
	const timeout = 300 * time.Millisecond
	for _, c := range []struct {
		name   string
		inTx   bool
		heed   bool
		within time.Duration
	}{
		{"Handle, heeding", false, true, timeout + 3*time.Second},
		{"HandleTx, heeding", true, true, timeout + 3*time.Second},
		{"Handle, not heeding", false, false, timeout + 4*time.Second},
		{"HandleTx, not heeding", true, false, timeout + 9*time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newDrainSite(t, sqlq.Config{HoldLimit: 10 * time.Millisecond, DrainTimeout: timeout, ReceiveConnections: 2})
			here := runUntil(s.here, s.endpoint("here", 2, c.inTx, c.heed))
			s.asleep(t, 1)
			s.send(t, -2, 0)
			s.await(t, 0, 0, 2)
			run(t, s.there, s.endpoint("there", 2, c.inTx, c.heed))
			eventuallyCount(t, s.pool, 2, `SELECT count(*) FROM sqlq.instance`)
			began := time.Now()
			here.cancel()
			here.wait(t, patience)
			took := time.Since(began)
			if took > c.within || took < timeout {
				t.Errorf("Run ended %v after its context, with a DrainTimeout of %v", took, timeout)
			}
			t.Logf("Run ended after %v", took.Round(time.Millisecond))
			s.mu.Lock()
			if c.heed != (s.ctxEnded == 2) {
				t.Errorf("the context of %d handlers ended", s.ctxEnded)
			}
			s.mu.Unlock()
			close(s.release) // those that did not heed it end now
			s.await(t, map[bool]int{true: 0, false: 2}[c.heed], 2, 2)
			eventuallyCount(t, s.pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_post) + (SELECT count(*) FROM sqlq.leased) + (SELECT count(*) FROM sqlq.error) + (SELECT count(*) FROM sqlq.delayed)`)
			eventuallyCount(t, s.pool, 2, `SELECT count(*) FROM sqlq.q_after`)
			if n := count(t, s.pool, `SELECT count(*) FROM sqlq.instance WHERE drained_at IS NOT NULL AND crashed_at IS NULL`); n != 1 {
				t.Errorf("%d instances have ended in order, want 1", n)
			}
		})
	}
}

// Close drains a running Run and waits for it; afterwards the Client does nothing any more.
func TestClose(t *testing.T) {
	t.Parallel()
	s := newDrainSite(t, sqlq.Config{HoldLimit: 10 * time.Millisecond})
	c := s.here
	here := runUntil(c, s.endpoint("here", 2, false, false))
	s.asleep(t, 1)
	s.send(t, -1, 0)
	s.await(t, 0, 0, 1)
	if err := c.Run(t.Context(), s.endpoint("here", 2, false, false)); !errors.Is(err, sqlq.ErrAlreadyRunning) {
		t.Errorf("a second Run: %v, want ErrAlreadyRunning", err)
	}
	closed := make(chan error, 1)
	go func() { closed <- c.Close(context.Background()) }()
	select {
	case err := <-closed:
		t.Errorf("Close did not wait for the handler: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(s.release)
	if err := <-closed; err != nil {
		t.Errorf("Close: %v", err)
	}
	here.wait(t, patience)
	for name, err := range map[string]error{
		"Send":      c.Send(t.Context(), letter{}),
		"SendMany":  c.SendMany(t.Context(), []sqlq.Message{letter{}}),
		"Publish":   c.Publish(t.Context(), posted{}),
		"SendTx":    inTx(t, s.pool, func(tx pgx.Tx) error { return c.SendTx(t.Context(), tx, letter{}) }),
		"PublishTx": inTx(t, s.pool, func(tx pgx.Tx) error { return c.PublishTx(t.Context(), tx, posted{}) }),
		"Run":       c.Run(t.Context(), s.endpoint("here", 2, false, false)),
		"Prepare":   c.Prepare(t.Context(), s.endpoint("here", 2, false, false)),
	} {
		if !errors.Is(err, sqlq.ErrClosed) {
			t.Errorf("%s after Close: %v, want ErrClosed", name, err)
		}
	}
	if err := c.Close(t.Context()); err != nil {
		t.Errorf("Close again: %v", err)
	}
	if n := count(t, s.pool, `SELECT count(*) FROM sqlq.q_post`); n != 0 {
		t.Errorf("%d messages stored", n)
	}
}

// A Close whose context ends cuts the drain short, whoever began it: handlers are told at once, their messages go back with no
// attempt spent, and the instance has ended in order.
func TestCloseCutsTheDrainShort(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ inTx, begun bool }{
		"Handle": {}, "HandleTx": {inTx: true}, "Handle, draining": {begun: true}, "HandleTx, draining": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newDrainSite(t, sqlq.Config{HoldLimit: 10 * time.Millisecond, DrainTimeout: time.Hour})
			here := runUntil(s.here, s.endpoint("here", 2, c.inTx, true))
			s.asleep(t, 1)
			s.send(t, -2, 0)
			s.await(t, 0, 0, 2)
			ctx, cancel := context.WithCancel(t.Context())
			if c.begun {
				here.cancel()
			}
			closed := make(chan error, 1)
			go func() { closed <- s.here.Close(ctx) }()
			s.asleep(t, 0) // it drains
			select {
			case err := <-closed:
				t.Fatalf("Close did not wait for the handlers: %v", err)
			default:
			}
			cancel()
			select {
			case err := <-closed:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("Close: %v, want the context's error", err)
				}
			case <-time.After(patience):
				t.Fatal("Close goes on")
			}
			here.wait(t, patience)
			if n := count(t, s.pool, `SELECT count(*) FROM sqlq.q_post WHERE attempt = 0`); n != 2 {
				t.Errorf("%d messages went back unspent, want 2", n)
			}
			if n := count(t, s.pool, `SELECT count(*) FROM sqlq.instance WHERE drained_at IS NOT NULL AND crashed_at IS NULL`); n != 1 {
				t.Errorf("%d instances have ended in order, want 1", n)
			}
			close(s.release)
		})
	}
}

// Run may end and begin again, and a context that has ended already is no error.
func TestRunAgain(t *testing.T) {
	t.Parallel()
	s := newDrainSite(t, sqlq.Config{})
	for round := range 3 {
		stop := run(t, s.here, s.endpoint("here", 2, false, false))
		s.send(t, round, round+1)
		s.await(t, round+1, 0, 0)
		stop()
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.here.Run(ended, s.endpoint("here", 2, false, false)); err != nil {
		t.Errorf("Run with an ended context: %v", err)
	}
	if n := count(t, s.pool, `SELECT count(*) FROM sqlq.instance WHERE drained_at IS NULL`); n != 0 {
		t.Errorf("%d instances have not ended in order", n)
	}
}

// A process that was thought dead takes a new number. When that meets its end, the record under the new number is ended too.
func TestEndMeetsANewNumber(t *testing.T) {
	t.Parallel()
	c, pool, count := ledger(t, sqlq.Config{LeaseTime: time.Second})
	stop := run(t, c, sqlq.Endpoint{Name: "ledger", Handlers: []sqlq.Handler{sqlq.HandleTx(book)}})
	eventually(t, "the instance is there", func() (bool, string) { return count(`SELECT count(*) FROM sqlq.instance`) == 1, "none" })
	execSQL(t, pool, `CREATE FUNCTION halt() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NEW; END'`)
	execSQL(t, pool, `CREATE TRIGGER halt BEFORE INSERT ON sqlq.instance FOR EACH ROW EXECUTE FUNCTION halt()`)
	barrier, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer barrier.Release()
	if _, err := barrier.Exec(t.Context(), `SELECT pg_advisory_lock(4711)`); err != nil {
		t.Fatal(err)
	}
	execSQL(t, pool, `UPDATE sqlq.instance SET crashed_at = now()`)
	sessions := func(more string) int {
		return count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND ` + more)
	}
	eventually(t, "it takes a new number", func() (bool, string) { return sessions(`wait_event = 'advisory'`) == 1, "it does not" })
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		stop()
	}()
	eventually(t, "it ends", func() (bool, string) { return sessions(`application_name = 'sqlq listen'`) == 0, "it listens" })
	if _, err := barrier.Exec(t.Context(), `SELECT pg_advisory_unlock(4711)`); err != nil {
		t.Fatal(err)
	}
	<-ended
	if alive, all := count(`SELECT count(*) FROM sqlq.instance WHERE drained_at IS NULL AND crashed_at IS NULL`), count(`SELECT count(*) FROM sqlq.instance`); alive != 0 || all != 2 {
		t.Errorf("of %d instances %d are taken for alive; want none of 2", all, alive)
	}
}
