package sqlq_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

var (
	modelSeed   = flag.Uint64("model.seed", 0, "seed of the model test's first round, which also chooses its kind; 0: a random one")
	modelRounds = flag.Int("model.rounds", 3, "rounds of the model test")
	modelSends  = flag.Int("model.sends", 900, "messages, about, that each of its rounds sends, not counting those that handlers send")
)

// TestModel runs a random program of senders and receivers and then accounts for every message: each is in exactly one
// place, and what its handler did happened as often as it may. See world.account for what that means.
//
// There are three kinds of rounds. In a calm one receivers drain and start again, handlers fail in every way, and
// nothing may be repeated. In one with refusals the server also refuses settles, so that plain handlers may repeat. In
// one with faults connections die at random.
func TestModel(t *testing.T) {
	t.Parallel()
	seed := *modelSeed
	if seed == 0 {
		seed = rand.Uint64N(1 << 32)
	}
	for i := range *modelRounds {
		seed := seed + uint64(i)
		kind := []string{"calm", "refusals", "faults"}[seed%3]
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t, seed, kind)
			w.live()
			if t.Failed() {
				t.Logf("what the library said last:\n%s", w.log.tail())
				t.Logf("repeat the program, though not its timing, with: go test ./sqlq -run 'TestModel$' -model.rounds=1 -model.seed=%d -model.sends=%d", seed, *modelSends)
			}
		})
	}
}

const hotRows = 4

// world is one round: a database, a program, and the books.
type world struct {
	t        *testing.T
	seed     uint64
	refusals bool
	faults   bool
	url      string
	db       *pgxpool.Pool // of the test itself: no fault hits it
	log      *logTail
	policies map[string]sqlq.RetryPolicy
	batches  bool // some handlers are batch handlers
	audited  bool // triggers write down what comes into and goes out of each table
	wary     bool // an instance of each endpoint has crashed lately: all receive by lease
	frayed   bool // connections break with the answer under way, so that nobody knows what was committed
	sent     chan struct{}
	books
}

func newWorld(t *testing.T, seed uint64, kind string) *world {
	w := &world{t: t, seed: seed, refusals: kind == "refusals", faults: kind == "faults", log: &logTail{}, sent: make(chan struct{})}
	w.books = books{lines: map[string]*line{}, visits: map[string][]*visit{}}
	w.url = pgtest.Database(t)
	w.db = poolOn(t, w.url)
	execSQL(t, w.db, `
		CREATE TABLE effect (key text, queue text);
		CREATE TABLE hot (id int PRIMARY KEY, n int DEFAULT 0);
		INSERT INTO hot SELECT generate_series(1, 4);
		CREATE TABLE refused (key text UNIQUE DEFERRABLE INITIALLY DEFERRED);
		SELECT sqlq.create_queue(q) FROM unnest(ARRAY['plain', 'tx', 'mixed', 'most', 'once']) q;
		INSERT INTO sqlq.subscription (type, queue) VALUES ('model.Happened', 'plain'), ('model.Happened', 'tx'),
			('model.Noticed', 'plain'), ('model.Noticed', 'mixed')`)
	rng := w.rng(0)
	w.policies = map[string]sqlq.RetryPolicy{}
	for _, name := range []string{"plain", "tx", "mixed"} {
		p := sqlq.RetryPolicy{Immediate: -1, Jitter: -1, Delays: []time.Duration{}}
		if rng.IntN(2) == 0 {
			p.Immediate = 1 + rng.IntN(2)
		}
		for range rng.IntN(3) {
			p.Delays = append(p.Delays, time.Duration(rng.IntN(20))*time.Millisecond)
		}
		w.policies[name] = p
	}
	w.policies["most"], w.policies["once"] = sqlq.RetryPolicy{}, w.policies["plain"]
	if w.audited = rng.IntN(2) == 0; w.audited {
		w.audit()
	}
	w.frayed = w.faults && rng.IntN(2) == 0
	if w.wary = rng.IntN(4) == 0; w.wary {
		execSQL(t, w.db, `
			INSERT INTO sqlq.instance (endpoint, host, pid, version, concurrency, session_lock, lease_time, crashed_at)
			SELECT e, 'of the past', 1, '', 1, true, interval '1 second', clock_timestamp() FROM unnest(ARRAY['plain', 'tx', 'mixed', 'most', 'once']) e`)
	}
	w.batches = rng.IntN(2) == 0
	return w
}

// rng is the source of chance of one actor.
func (w *world) rng(actor uint64) *rand.Rand { return rand.New(rand.NewPCG(w.seed, actor)) }

// live runs the program to its end and accounts for it.
func (w *world) live() {
	began := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var receivers, senders, spoilers sync.WaitGroup
	done := make(chan struct{})
	receivers.Go(func() { w.receiver(ctx, 10, "plain", "tx", "mixed", "most", "once") })
	receivers.Go(func() { w.receiver(ctx, 11, "plain", "mixed", "once") })
	receivers.Go(func() { w.receiver(ctx, 12, "tx", "mixed", "most", "once") })
	for actor := range uint64(4) {
		senders.Go(func() { w.sender(20+actor, *modelSends/4) })
	}
	spoilers.Go(func() { w.pauser(w.sent, 31) })
	if w.faults {
		spoilers.Go(func() { w.spoiler(w.sent, 30) })
	}
	go func() { senders.Wait(); close(w.sent); spoilers.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		w.t.Fatalf("the senders did not end\n%s", w.state())
	}
	quiet := w.quiet()
	cancel()
	ended := make(chan struct{})
	go func() { receivers.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(patience + 10*time.Second):
		w.t.Fatalf("the receivers did not drain\n%s", w.state())
	}
	if quiet {
		w.account()
	}
	repeated, visits := w.repeated()
	turned := count(w.t, w.db, `SELECT count(*) FROM sqlq.inbox WHERE name = 'hours' AND current = 'b'`)
	w.t.Logf("%d messages (audited: %v, wary: %v, frayed: %v, inbox turned: %d), %d visits of handlers, %d of them repeated, %d backends terminated, %v",
		len(w.lines), w.audited, w.wary, w.frayed, turned, visits, repeated, len(w.kills), time.Since(began).Round(time.Millisecond))
}

// pool opens a pool for an actor, whose backends the spoiler knows.
func (w *world) pool(name string) *pgxpool.Pool {
	config, err := pgxpool.ParseConfig(w.url)
	if err != nil {
		w.t.Error(err)
		return nil
	}
	config.MaxConns = 4
	if w.frayed {
		dial := config.ConnConfig.DialFunc
		config.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &frayedConn{Conn: c, world: w}, nil
		}
	}
	config.ConnConfig.RuntimeParams["application_name"] = name
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		w.t.Error(err)
		return nil
	}
	return pool
}

// pause waits a random time up to d; false when ctx ended.
func pause(ctx context.Context, rng *rand.Rand, d time.Duration) bool {
	timer := time.NewTimer(time.Duration(rng.Int64N(int64(d))))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// receiver runs endpoints, and while the senders send drains them now and then and begins again.
func (w *world) receiver(ctx context.Context, actor uint64, names ...string) {
	rng := w.rng(actor)
	pool := w.pool("model receiver")
	defer pool.Close()
	var c *sqlq.Client
	for ctx.Err() == nil {
		if c == nil {
			var err error
			c, err = sqlq.Open(ctx, pool, sqlq.WithStrandedAfter(sqlq.Config{
				Routes:             modelRoutes,
				Logger:             slog.New(slog.NewTextHandler(w.log, nil)).With("receiver", actor),
				ReceiveConnections: 1 + rng.IntN(3),
				HoldLimit:          time.Duration(5+rng.IntN(60)) * time.Millisecond,
				LeaseTime:          w.leaseTime(),
				PollInterval:       time.Hour, // no net: what nobody was woken for stays, and is found missing
			}, 5*time.Second))
			if err != nil && ctx.Err() == nil && !w.faults {
				w.t.Errorf("open: %v", err)
				return
			}
		}
		if c != nil && !w.shift(ctx, rng, c, w.modelEndpoints(c, 1+rng.IntN(8), names...)) {
			c = nil
		}
		pause(ctx, rng, 200*time.Millisecond)
	}
}

// shift runs endpoints for a while, after the last send to the end of the round, and drains them. It says whether the
// client is still open.
func (w *world) shift(ctx context.Context, rng *rand.Rand, c *sqlq.Client, endpoints []sqlq.Endpoint) (open bool) {
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- c.Run(running, endpoints...) }()
	over := time.After(time.Duration(100+rng.IntN(1500)) * time.Millisecond)
	for waiting := true; waiting; {
		select {
		case err := <-ended: // by a fault; without one it does not end by itself
			if !w.faults || err == nil {
				w.t.Errorf("run: ended with %v", err)
			}
			return true
		case <-ctx.Done():
			waiting = false
		case <-over:
			select {
			case <-w.sent:
				over = nil
			default:
				waiting = false
			}
		}
	}
	open = rng.IntN(3) > 0
	if open {
		stop()
	} else {
		closing, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := c.Close(closing); err != nil {
			w.t.Errorf("close: %v", err)
		}
	}
	select {
	case err := <-ended:
		if err != nil && !w.faults {
			w.t.Errorf("run: %v", err)
		}
	case <-time.After(patience):
		w.t.Errorf("Run did not return after its context ended\n%s", w.state())
	}
	return open
}

func (w *world) leaseTime() time.Duration {
	if w.faults {
		return 3 * time.Second
	}
	return 0
}

// pauser pauses queues and resumes them until the senders have ended.
func (w *world) pauser(until chan struct{}, actor uint64) {
	rng := w.rng(actor)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-until:
			cancel()
		case <-ctx.Done():
		}
	}()
	for pause(ctx, rng, 400*time.Millisecond) {
		queue := []string{"plain", "tx", "mixed", "most", "once"}[rng.IntN(5)]
		mark(w.t, w.db, queue, true, true)
		pause(ctx, rng, 150*time.Millisecond)
		mark(w.t, w.db, queue, false, true)
		w.rotate(ctx)
	}
}

// quiet waits until every message that is not deferred for long has ended; false when that does not happen.
func (w *world) quiet() bool {
	const open = `
		SELECT (SELECT count(*) FROM sqlq.q_plain) + (SELECT count(*) FROM sqlq.q_tx) + (SELECT count(*) FROM sqlq.q_mixed)
			+ (SELECT count(*) FROM sqlq.q_most) + (SELECT count(*) FROM sqlq.q_once)
			+ (SELECT count(*) FROM sqlq.leased) + (SELECT count(*) FROM sqlq.delayed WHERE due_at < now() + interval '30 minutes')`
	deadline, tick := time.NewTimer(2*patience), time.NewTicker(10*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for {
		var n int
		if err := w.db.QueryRow(context.Background(), open).Scan(&n); err != nil {
			w.t.Error(err)
			return false
		}
		if n == 0 {
			return true
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			w.t.Errorf("%d messages are still under way %v after the last was sent\n%s", n, 2*patience, w.state())
			return false
		}
	}
}

// state describes what lies where, for a test that waits in vain.
func (w *world) state() string {
	var out strings.Builder
	for _, sql := range []string{
		`SELECT 'plain', seq, attempt, xmax, type, headers::text, left(convert_from(body, 'UTF8'), 80) FROM sqlq.q_plain LIMIT 20`,
		`SELECT 'tx', seq, attempt, xmax, type, headers::text, left(convert_from(body, 'UTF8'), 80) FROM sqlq.q_tx LIMIT 20`,
		`SELECT 'mixed', seq, attempt, xmax, type, headers::text, left(convert_from(body, 'UTF8'), 80) FROM sqlq.q_mixed LIMIT 20`,
		`SELECT 'most', seq, attempt, xmax, type, headers::text, left(convert_from(body, 'UTF8'), 80) FROM sqlq.q_most LIMIT 20`,
		`SELECT 'once', seq, attempt, xmax, id, type, headers::text, left(convert_from(body, 'UTF8'), 80) FROM sqlq.q_once LIMIT 20`,
		`SELECT 'leased', instance, lease, queue, attempt, leased_at::text, type, headers::text, left(convert_from(body, 'UTF8'), 80) FROM sqlq.leased LIMIT 20`,
		`SELECT 'delayed', queue, due_at::text, clock_timestamp()::text, attempt, left(convert_from(body, 'UTF8'), 80) FROM sqlq.delayed WHERE due_at < now() + interval '30 minutes' LIMIT 20`,
		`SELECT 'instance', id, endpoint, heartbeat_at::text, drained_at::text, crashed_at::text FROM sqlq.instance ORDER BY id DESC LIMIT 12`,
		`SELECT 'backend', pid, application_name, state, wait_event, xact_start::text, left(query, 60) FROM pg_stat_activity WHERE datname = current_database()`,
		`SELECT 'advisory', pid, classid, objid, mode, granted FROM pg_locks WHERE locktype = 'advisory'`,
	} {
		rows, err := w.db.Query(context.Background(), sql)
		if err != nil {
			fmt.Fprintln(&out, err)
			continue
		}
		for rows.Next() {
			values, _ := rows.Values()
			fmt.Fprintln(&out, values...)
		}
		rows.Close()
	}
	stacks := make([]byte, 1<<20)
	fmt.Fprintf(&out, "%s\n", stacks[:runtime.Stack(stacks, true)])
	return out.String()
}

// logTail keeps the last of what the library logs.
type logTail struct {
	mu    sync.Mutex
	lines [][]byte
}

func (l *logTail) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, slices.Clone(b))
	if len(l.lines) > 400 {
		l.lines = l.lines[200:]
	}
	return len(b), nil
}

func (l *logTail) tail() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Join(l.lines, nil)
}
