package sqlq_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// wake is one wake-up test: a database and receivers on it, and who waits for which message.
type wake struct {
	t      *testing.T
	seed   uint64
	url    string
	pool   *pgxpool.Pool
	faults bool // messages may be handled again, and take longer
	sends  int  // of each sender
	lost   chan struct{}
	once   sync.Once

	looks, asleep atomic.Int64 // before some of the sends: how often a receiver of the queue slept

	mu       sync.Mutex
	longest  time.Duration // from a commit to the handler, and of which message
	latest   string
	waiting  map[string]chan struct{}
	children []*receivingProcess
}

type receivingProcess struct {
	cmd    *exec.Cmd
	stderr *bytes.Buffer // to be read once the process has ended
	ended  chan struct{}
}

func newWake(t *testing.T) *wake {
	w := &wake{t: t, seed: *wakeSeed, sends: *wakeSends, url: pgtest.Database(t), lost: make(chan struct{}), waiting: map[string]chan struct{}{}}
	if w.seed == 0 {
		w.seed = rand.Uint64N(1 << 32)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed: -wake.seed=%d -wake.sends=%d", w.seed, *wakeSends)
		}
	})
	config, err := pgxpool.ParseConfig(w.url)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 12
	if w.pool, err = pgxpool.NewWithConfig(context.Background(), config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.pool.Close)
	execSQL(t, w.pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['a', 'b', 'c', 'd']) q`)
	return w
}

func (w *wake) client() *sqlq.Client {
	config := wakeConfig
	config.Logger = slog.New(slog.DiscardHandler)
	return open(w.t, w.pool, config)
}

// process starts a receiving process.
func (w *wake) process() {
	w.t.Helper()
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	p := &receivingProcess{cmd: exec.Command(self), stderr: &bytes.Buffer{}, ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), wakeChild+"="+w.url)
	p.cmd.Stderr = p.stderr
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			w.handled(lines.Text())
		}
		_ = p.cmd.Wait()
	}()
	w.mu.Lock()
	w.children = append(w.children, p)
	w.mu.Unlock()
	w.t.Cleanup(func() {
		stdin.Close()
		select {
		case <-p.ended:
		case <-time.After(patience):
			w.t.Error("a receiving process did not end")
			_ = p.cmd.Process.Kill()
			<-p.ended
		}
		if p.cmd.ProcessState.ExitCode() != 0 || w.t.Failed() {
			w.t.Errorf("a receiving process: %v\n%s", p.cmd.ProcessState, p.stderr)
		}
	})
}

// handled takes in that a handler got a message.
func (w *wake) handled(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c, waiting := w.waiting[key]
	if !waiting {
		if !w.faults {
			w.t.Errorf("%s was handled twice, or was never committed", key)
		}
		return
	}
	delete(w.waiting, key)
	close(c)
}

// expect is to be called before a message is sent.
func (w *wake) expect(key string) <-chan struct{} {
	c := make(chan struct{})
	w.mu.Lock()
	w.waiting[key] = c
	w.mu.Unlock()
	return c
}

// spoil terminates the connections that wake-ups need, now and then.
func (w *wake) spoil() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	rng := rand.New(rand.NewPCG(w.seed, 100))
	var spoiler sync.WaitGroup
	spoiler.Go(func() {
		for pause(ctx, rng, 400*time.Millisecond) {
			name := []string{"sqlq listen", "sqlq listen", "sqlq keep", "sqlq receive"}[rng.IntN(4)]
			if _, err := w.pool.Exec(ctx, `
				SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1 LIMIT $2`,
				name, 1+rng.IntN(2)); err != nil && ctx.Err() == nil {
				w.t.Errorf("terminate %s: %v", name, err)
			}
		}
	})
	return func() { cancel(); spoiler.Wait() }
}

// race has six senders send to four queues, each waiting for its message before it sends the next, so that receivers
// fall asleep all the time.
func (w *wake) race(c *sqlq.Client) {
	began := time.Now()
	for queue := range nudges { // the receivers are up
		w.await(w.send(queue+" first", func(ctx context.Context, key string) error { return c.Send(ctx, nudges[queue](key)) }), queue, patience)
	}
	ready := time.Now()
	if w.faults {
		defer w.spoil()()
	}
	var senders sync.WaitGroup
	for i, queue := range []string{"a", "b", "c", "d", "a", "d"} {
		senders.Go(func() { w.sender(c, uint64(i), queue) })
	}
	senders.Wait()
	if w.looks.Load() > 100 && w.asleep.Load() == 0 {
		w.t.Error("the receivers never slept; there was nothing to wake")
	}
	w.t.Logf("6 × %d messages in %v, after a start of %v; a receiver slept before %d of %d; the longest way took %v (%s)", w.sends,
		time.Since(ready).Round(time.Millisecond), ready.Sub(began).Round(time.Millisecond), w.asleep.Load(), w.looks.Load(),
		w.longest.Round(time.Millisecond), w.latest)
}

func (w *wake) sender(c *sqlq.Client, actor uint64, queue string) {
	rng := rand.New(rand.NewPCG(w.seed, actor))
	within := wakeWithin
	if w.faults {
		within = 3 * wakeWithin // a housekeeper that died is followed at the next heartbeat
	}
	pauses := []time.Duration{time.Microsecond, 300 * time.Microsecond, 3 * time.Millisecond, 10 * time.Millisecond}
	for n := 0; n < w.sends; {
		if rng.IntN(10) == 0 {
			w.look(queue)
		}
		// Several at a time keep receivers awake for a moment; then they fall asleep while the next is on its way.
		var sent []*nudged
		for range []int{1, 1, 2, 3, 8}[rng.IntN(5)] {
			hold := time.Duration(0)
			switch n := rng.IntN(50); {
			case n == 0:
				hold = 600 * time.Millisecond // until everybody sleeps again
			case n < 25:
				hold = pauses[rng.IntN(len(pauses))]
			}
			way, send := w.way(c, rng, queue, hold)
			sent = append(sent, w.send(fmt.Sprintf("%s %d.%d by %s", queue, actor, n, way), send))
			n++
		}
		for _, m := range sent {
			if !w.await(m, queue, within) {
				return
			}
		}
		pause(context.Background(), rng, pauses[rng.IntN(len(pauses))])
	}
}

// look counts whether a receiver of the queue sleeps now.
func (w *wake) look(queue string) {
	w.looks.Add(1)
	w.asleep.Add(int64(min(1, count(w.t, w.pool, `
		SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
			AND classid = 1936813169 AND objid = (to_regclass('sqlq.q_' || $1)::oid::bigint - 2147483648)::int::oid`, queue))))
}

// way chooses how a message is sent. Transactions are held open for a while after the send.
func (w *wake) way(c *sqlq.Client, rng *rand.Rand, queue string, hold time.Duration) (string, func(ctx context.Context, key string) error) {
	bySQL := func(ctx context.Context, db interface {
		QueryRow(context.Context, string, ...any) pgx.Row
	}, key string) error {
		var id string
		return db.QueryRow(ctx, `SELECT sqlq.send($1, $2, $3)::text`, queue, "wake."+queue, fmt.Sprintf(`{"Key": %q}`, key)).Scan(&id)
	}
	inTx := func(send func(ctx context.Context, tx pgx.Tx, key string) error) func(ctx context.Context, key string) error {
		return func(ctx context.Context, key string) error {
			return pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
				if err := send(ctx, tx, key); err != nil {
					return err
				}
				if hold > 0 {
					pause(ctx, rng, hold)
				}
				return nil
			})
		}
	}
	switch rng.IntN(10) {
	case 0:
		return "Send after a rollback", func(ctx context.Context, key string) error {
			gone := errors.New("gone")
			err := inTx(func(ctx context.Context, tx pgx.Tx, key string) error {
				return errors.Join(c.SendTx(ctx, tx, nudges[queue](key+" rolled back")), gone)
			})(ctx, key)
			if !errors.Is(err, gone) {
				return err
			}
			return c.Send(ctx, nudges[queue](key))
		}
	case 1, 2:
		return "Send", func(ctx context.Context, key string) error { return c.Send(ctx, nudges[queue](key)) }
	case 3, 4:
		return "SendTx", inTx(func(ctx context.Context, tx pgx.Tx, key string) error { return c.SendTx(ctx, tx, nudges[queue](key)) })
	case 5, 6:
		return "SQL in a transaction", inTx(func(ctx context.Context, tx pgx.Tx, key string) error { return bySQL(ctx, tx, key) })
	case 7:
		return "SQL", func(ctx context.Context, key string) error { return bySQL(ctx, w.pool, key) }
	case 8:
		return "SendMany", func(ctx context.Context, key string) error {
			return c.SendMany(ctx, []sqlq.Message{nudges[queue](key)})
		}
	default:
		delay := time.Duration(rng.IntN(8)) * time.Millisecond
		return "Send with a delay", func(ctx context.Context, key string) error {
			return c.Send(ctx, nudges[queue](key), sqlq.Delay(delay))
		}
	}
}

// nudged is a message that was sent.
type nudged struct {
	key     string
	handled <-chan struct{}
	at      time.Time // committed
}

func (w *wake) send(key string, send func(ctx context.Context, key string) error) *nudged {
	m := &nudged{key: key, handled: w.expect(key)}
	if err := send(context.Background(), key); err != nil {
		w.t.Errorf("%s: %v", key, err)
		w.stop()
	}
	m.at = time.Now()
	return m
}

// await waits until a message is handled.
func (w *wake) await(m *nudged, queue string, within time.Duration) bool {
	timer := time.NewTimer(within - time.Since(m.at))
	defer timer.Stop()
	select {
	case <-m.handled:
		w.mu.Lock()
		defer w.mu.Unlock()
		if took := time.Since(m.at); took > w.longest && within != patience {
			w.longest, w.latest = took, m.key
		}
		return true
	case <-w.lost:
	case <-timer.C:
		w.once.Do(func() {
			w.t.Errorf("%s: not handled within %v of its commit\n%s", m.key, within, w.state(queue))
			for _, p := range w.children {
				_ = p.cmd.Process.Signal(syscall.SIGQUIT) // it says where it is
			}
			close(w.lost)
		})
	}
	return false
}

// stop has all senders give up.
func (w *wake) stop() { w.once.Do(func() { close(w.lost) }) }

// state describes what the database knows of a queue whose message was not handled.
func (w *wake) state(queue string) string {
	var out strings.Builder
	for _, sql := range []string{
		`SELECT 'ready', seq, sent_at, clock_timestamp(), convert_from(body, 'UTF8') FROM sqlq.q_` + queue,
		`SELECT 'delayed', queue, due_at, clock_timestamp(), convert_from(body, 'UTF8') FROM sqlq.delayed`,
		`SELECT 'leased', instance, convert_from(body, 'UTF8') FROM sqlq.leased`,
		`SELECT 'lock', l.pid, a.application_name, l.locktype, l.relation::regclass::text, l.classid, l.objid, l.mode, l.granted, l.virtualtransaction
			FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid) WHERE l.locktype IN ('advisory', 'relation') AND l.relation IS DISTINCT FROM 'pg_locks'::regclass
			AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND l.pid <> pg_backend_pid()`,
		`SELECT 'channel', relname, oid FROM pg_class WHERE relname LIKE 'q\__'`,
		`SELECT 'backend', pid, application_name, state, wait_event, left(query, 200) FROM pg_stat_activity WHERE datname = current_database()`,
	} {
		rows, err := w.pool.Query(context.Background(), sql)
		if err != nil {
			fmt.Fprintln(&out, err)
			continue
		}
		for rows.Next() {
			values, _ := rows.Values()
			line, _ := json.Marshal(values)
			fmt.Fprintf(&out, "%s\n", line)
		}
		rows.Close()
	}
	return out.String()
}
