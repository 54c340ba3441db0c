package sqlq_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// The tests of this file kill and freeze real processes. A child is this test binary again: it runs the endpoint
// "crash" as its parent does, but dies or stops where a message says so.

const childVariable = "SQLQ_TEST_CHILD"

// crashLease is the LeaseTime of the processes, unless a child is told another.
const crashLease = 3 * time.Second

// childSpec is what a child is told.
type childSpec struct {
	URL         string
	LeaseTime   time.Duration
	HoldLimit   time.Duration
	Connections int
	Concurrency int
	InTx        bool // only HandleTx, else only Handle
	AtMostOnce  bool
	Deduplicate bool
}

// peril is a command for a Handle handler, perilTx one for a HandleTx handler. aftermath is what they send.
type peril struct {
	N int
	// Do says what happens to a child that handles the message: "wait" stops its handler until the parent says so,
	// "exit" ends the process.
	Do string `json:",omitempty"`
}

type perilTx struct{ peril }

type aftermath struct{ N int }

func (peril) MessageType() string     { return "crash.Peril" }
func (perilTx) MessageType() string   { return "crash.PerilTx" }
func (aftermath) MessageType() string { return "crash.Aftermath" }

// crashTables: began is written as a handler begins, handled at its end by Handle, past every transaction; effect is
// written by HandleTx in the receive transaction.
const crashTables = `
CREATE TABLE began (n int NOT NULL, pid int NOT NULL);
CREATE TABLE handled (n int NOT NULL, pid int NOT NULL);
CREATE TABLE effect (n int NOT NULL, pid int NOT NULL);
SELECT sqlq.create_queue(q) FROM unnest(ARRAY['crash', 'after']) q;`

var crashRoutes = map[string]string{"crash.Peril": "crash", "crash.PerilTx": "crash", "crash.Aftermath": "after"}

var threeAttempts = sqlq.RetryPolicy{Immediate: 2, Delays: []time.Duration{}}

// perils is the endpoint of a process, child or parent.
type perils struct {
	pool  *pgxpool.Pool
	child bool
	goOn  chan struct{} // closed when the parent lets a waiting child go on
}

func (p *perils) endpoint(concurrency int, inTx bool) sqlq.Endpoint {
	e := sqlq.Endpoint{Name: "crash", Concurrency: concurrency, Retry: threeAttempts, Handlers: []sqlq.Handler{
		sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[peril]) error {
			return p.handle(ctx, nil, d.Incoming, d.Message)
		}),
	}}
	if inTx {
		e.Handlers = []sqlq.Handler{sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[perilTx]) error {
			return p.handle(ctx, tx, d.Incoming, d.Message.peril)
		})}
	}
	return e
}

func (p *perils) handle(ctx context.Context, tx pgx.Tx, in *sqlq.Incoming, m peril) error {
	if _, err := p.pool.Exec(ctx, `INSERT INTO began VALUES ($1, $2)`, m.N, os.Getpid()); err != nil {
		return err
	}
	if err := in.Send(aftermath{N: m.N}); err != nil {
		return err
	}
	if tx != nil {
		if _, err := tx.Exec(ctx, `INSERT INTO effect VALUES ($1, $2)`, m.N, os.Getpid()); err != nil {
			return err
		}
	}
	if p.child && m.Do == "exit" {
		os.Exit(3)
	}
	if p.child && m.Do == "wait" {
		<-p.goOn
	}
	if tx == nil {
		_, err := p.pool.Exec(ctx, `INSERT INTO handled VALUES ($1, $2)`, m.N, os.Getpid())
		return err
	}
	return nil
}

// beChild runs a child, in a process that is one, and does not return then.
func beChild() {
	told, isChild := os.LookupEnv(childVariable)
	if !isChild {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &perils{child: true, goOn: make(chan struct{})}
	go func() { // "go" lets handlers go on; the end of the input ends the child, also when its parent has died
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			close(p.goOn)
		}
		cancel()
	}()
	if err := p.run(ctx, told); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (p *perils) run(ctx context.Context, told string) error {
	var spec childSpec
	if err := json.Unmarshal([]byte(told), &spec); err != nil {
		return err
	}
	var err error
	if p.pool, err = pgxpool.New(ctx, spec.URL); err != nil {
		return err
	}
	c, err := sqlq.Open(ctx, p.pool, sqlq.Config{LeaseTime: cmp.Or(spec.LeaseTime, crashLease), HoldLimit: spec.HoldLimit, ReceiveConnections: spec.Connections,
		Routes: crashRoutes, DrainTimeout: time.Second, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	e := p.endpoint(spec.Concurrency, spec.InTx)
	if spec.AtMostOnce {
		e.AtMostOnce, e.Retry = true, sqlq.RetryPolicy{}
	}
	if spec.Deduplicate {
		e.Deduplicate = time.Minute
	}
	return c.Run(ctx, e)
}

// childProcess is a running child.
type childProcess struct {
	*exec.Cmd
	input io.WriteCloser
	said  *bytes.Buffer // until it has ended, the process's own
	ended chan struct{} // after which ProcessState is there
}

// spawn starts a child; it is killed at the latest when the test ends.
func spawn(t *testing.T, spec childSpec) *childProcess {
	t.Helper()
	told, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	c := &childProcess{Cmd: exec.Command(os.Args[0]), said: &bytes.Buffer{}, ended: make(chan struct{})}
	c.Env = append(os.Environ(), childVariable+"="+string(told))
	c.Stderr = c.said
	if c.input, err = c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { c.Wait(); close(c.ended) }()
	t.Cleanup(func() {
		c.Process.Kill()
		<-c.ended
		if t.Failed() {
			t.Logf("child %d: %v\n%s", c.Process.Pid, c.ProcessState, c.said)
		}
	})
	return c
}

// wait waits for the child's end.
func (c *childProcess) wait(t *testing.T) {
	t.Helper()
	select {
	case <-c.ended:
	case <-time.After(patience):
		t.Fatalf("child %d goes on and on", c.Process.Pid)
	}
}

// finish has the child drain, and wants it to end in order.
func (c *childProcess) finish(t *testing.T) {
	t.Helper()
	c.input.Close()
	c.wait(t)
	if !c.ProcessState.Success() {
		t.Errorf("child %d: %v\n%s", c.Process.Pid, c.ProcessState, c.said)
	}
}

// crashSite is a database with a client that sends, and that may run the endpoint too.
type crashSite struct {
	url  string
	pool *pgxpool.Pool
	*sqlq.Client
}

func newCrashSite(t *testing.T) *crashSite {
	t.Helper()
	s := &crashSite{url: pgtest.Database(t)}
	s.pool = poolOn(t, s.url)
	execSimple(t, s.pool, crashTables)
	// Nothing but wake-ups brings a message within the hour.
	s.Client = open(t, s.pool, sqlq.Config{LeaseTime: crashLease, PollInterval: time.Hour, Routes: crashRoutes})
	return s
}

// handle runs the endpoint in this process and returns when it sleeps.
func (s *crashSite) handle(t *testing.T, inTx bool) (stop func()) {
	t.Helper()
	untilAsleep(t, s.pool, "crash", func() { stop = run(t, s.Client, (&perils{pool: s.pool}).endpoint(4, inTx)) })
	return stop
}

// untilAsleep starts a process's receivers of a queue and returns when they sleep, whatever others do: when its listener
// keeps the watch, or has tried to take it and stands by.
func untilAsleep(t *testing.T, pool *pgxpool.Pool, queue string, start func()) {
	t.Helper()
	var others []int32
	if err := pool.QueryRow(t.Context(), `SELECT coalesce(array_agg(pid), '{}') FROM pg_stat_activity
		WHERE application_name = 'sqlq listen' AND datname = current_database()`).Scan(&others); err != nil {
		t.Fatal(err)
	}
	start()
	eventually(t, "new receivers asleep", func() (bool, string) {
		n := count(t, pool, `SELECT count(*) FROM pg_stat_activity a
			WHERE application_name = 'sqlq listen' AND datname = current_database() AND pid <> ALL ($2::int[]) AND state = 'idle'
				AND (query LIKE '%pg_try_advisory_lock(%' OR EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND locktype = 'advisory' AND classid = 1936813169
					AND objid = ($1::regclass::oid::bigint - 2147483648)::int::oid))`, pgx.Identifier{"sqlq", "q_" + queue}.Sanitize(), others)
		return n > 0, fmt.Sprint(n, " sleep")
	})
}

func (s *crashSite) sendPerils(t *testing.T, n int, inTx bool, do map[int]string) {
	t.Helper()
	var ms []sqlq.Message
	for i := range n {
		p := peril{N: i, Do: do[i]}
		if inTx {
			ms = append(ms, perilTx{p})
		} else {
			ms = append(ms, p)
		}
	}
	if err := s.SendMany(t.Context(), ms); err != nil {
		t.Fatal(err)
	}
}

// everywhere counts the messages of the endpoint that are not handled.
const everywhere = `SELECT (SELECT count(*) FROM sqlq.q_crash) + (SELECT count(*) FROM sqlq.leased) + (SELECT count(*) FROM sqlq.delayed) + (SELECT count(*) FROM sqlq.error)`

// once wants each of the numbers 0 to n-1 exactly once.
func (s *crashSite) once(t *testing.T, n int, query, what string) {
	t.Helper()
	rows, err := s.pool.Query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	want := make([]int, n)
	for i := range want {
		want[i] = i
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want each of 0 to %d once", what, got, n-1)
	}
}

const aftermaths = `SELECT (convert_from(body, 'UTF8')::json->>'N')::int FROM sqlq.q_after`

// inMidst waits until a query of one boolean holds: the child has begun what it will.
func (s *crashSite) inMidst(t *testing.T, name, state string) {
	t.Helper()
	eventually(t, name+": the child in the midst of its messages", func() (is bool, describe string) {
		if err := s.pool.QueryRow(t.Context(), state).Scan(&is); err != nil {
			t.Fatal(err)
		}
		return is, fmt.Sprint(count(t, s.pool, `SELECT count(*) FROM began`), " begun, ", count(t, s.pool, `SELECT count(*) FROM sqlq.leased`), " leased")
	})
}

// empty waits until all messages of the endpoint are handled, and returns when they were; not later than within after the
// event.
func (s *crashSite) empty(t *testing.T, name string, event time.Time, within time.Duration) {
	t.Helper()
	eventually(t, name+": all messages handled", func() (bool, string) {
		n := count(t, s.pool, everywhere)
		return n == 0, fmt.Sprint(n, " are not")
	})
	took := time.Since(event)
	if took > within {
		t.Errorf("%s: it took %v until others had handled the messages, want %v at most", name, took, within)
	}
	t.Logf("%s: handled after %v", name, took.Round(time.Millisecond))
}

// A process that is killed loses nothing and holds nothing up: others handle its messages within seconds, whether it
// held them in a transaction, had leased them, or was in a HandleTx batch, of which then nothing has happened.
func TestKilledProcess(t *testing.T) {
	t.Parallel()
	waiting := map[int]string{}
	for i := range 12 {
		waiting[i] = "wait"
	}
	cases := []struct {
		name  string
		spec  childSpec
		n     int // messages
		do    map[int]string
		state string // holds once the child has begun all that it will

		site   *crashSite
		victim *childProcess
		killed time.Time
	}{
		// One fetch brings them all, and none is missing that would be worth a lease.
		{name: "held", spec: childSpec{HoldLimit: 5 * time.Second, Connections: 1, Concurrency: 8}, n: 8, do: waiting,
			state: `SELECT (SELECT count(*) FROM began) = 8 AND NOT EXISTS (SELECT FROM sqlq.leased)`},
		{name: "leased", spec: childSpec{HoldLimit: 20 * time.Millisecond, Concurrency: 8}, n: 12, do: waiting,
			state: `SELECT (SELECT count(*) FROM began) = 8 AND (SELECT count(*) FROM sqlq.leased) = 8`},
		{name: "HandleTx", spec: childSpec{HoldLimit: 5 * time.Second, Connections: 1, Concurrency: 8, InTx: true}, n: 12, do: map[int]string{8: "wait"},
			// What it has committed is in effect and begun; what is begun and not in effect will be undone.
			state: `SELECT EXISTS (SELECT FROM began WHERE n = 8) AND (SELECT count(*) FROM began) = 9 AND NOT EXISTS (SELECT FROM effect WHERE n = 8)`},
	}
	for i := range cases { // one after the other, because what is held is held for seconds only
		c := &cases[i]
		c.site = newCrashSite(t)
		c.site.sendPerils(t, c.n, c.spec.InTx, c.do)
		c.spec.URL = c.site.url
		c.victim = spawn(t, c.spec)
		c.site.inMidst(t, c.name, c.state)
		c.site.handle(t, c.spec.InTx)
		if count(t, c.site.pool, everywhere) == 0 {
			t.Fatalf("%s: nothing is in the child's hands", c.name)
		}
		if err := c.victim.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		c.killed = time.Now()
	}
	for _, c := range cases {
		c.victim.wait(t)
		c.site.empty(t, c.name, c.killed, 10*time.Second)
		c.site.once(t, c.n, aftermaths, c.name+": sent by handlers")
		if c.spec.InTx {
			c.site.once(t, c.n, `SELECT n FROM effect`, c.name+": effects")
		} else {
			c.site.once(t, c.n, fmt.Sprintf(`SELECT n FROM handled WHERE pid = %d`, os.Getpid()), c.name+": handled by this process")
		}
		eventuallyCount(t, c.site.pool, 1, `SELECT count(*) FROM sqlq.instance WHERE crashed_at IS NOT NULL`)
	}
}

// supervised is a process that is started again whenever it dies of a message.
type supervised struct {
	name string
	spec childSpec
	at   []int // the messages that kill

	site   *crashSite
	child  *childProcess
	starts int
}

const perilsEach = 20

func (s *supervised) begin(t *testing.T) {
	t.Helper()
	s.site = newCrashSite(t)
	do := map[int]string{}
	for _, at := range s.at {
		do[at] = "exit"
	}
	s.site.sendPerils(t, perilsEach, s.spec.InTx, do)
	s.spec.URL, s.spec.LeaseTime = s.site.url, time.Second // after two thirds of which a restarted process believes in a death
	s.child, s.starts = spawn(t, s.spec), 1
}

// step restarts the process if it has died, and says whether it has come to an end with all messages.
func (s *supervised) step(t *testing.T) (done bool, describe string) {
	t.Helper()
	select {
	case <-s.child.ended:
		if code := s.child.ProcessState.ExitCode(); code != 3 {
			t.Fatalf("%s: child: %v\n%s", s.name, s.child.ProcessState, s.child.said)
		}
		s.child = spawn(t, s.spec)
		s.starts++
	default:
	}
	failed, rest := count(t, s.site.pool, `SELECT count(*) FROM sqlq.error`), count(t, s.site.pool, everywhere)
	return failed >= len(s.at) && rest == failed, fmt.Sprintf("%s: %d starts, %d failed, %d others", s.name, s.starts, failed, rest-failed)
}

// A message that kills every process that handles it is counted, although none of them lives to tell, and fails once its
// attempts are spent. Its neighbours, which are in the same hands every time, are all handled.
func TestMessageThatKillsItsProcess(t *testing.T) {
	t.Parallel()
	cases := []*supervised{
		{name: "first", spec: childSpec{Concurrency: 4}, at: []int{0}},
		{name: "in the middle", spec: childSpec{Concurrency: 4}, at: []int{9}},
		{name: "two side by side", spec: childSpec{Concurrency: 4}, at: []int{3, 4}},
		{name: "one at a time", spec: childSpec{Concurrency: 1}, at: []int{3}},
		{name: "HandleTx", spec: childSpec{Concurrency: 4, InTx: true}, at: []int{5}},
	}
	for _, c := range cases {
		c.begin(t)
	}
	eventually(t, "all messages at an end", func() (bool, string) {
		all, described := true, ""
		for _, c := range cases {
			done, describe := c.step(t)
			all, described = all && done, described+"\n"+describe
		}
		return all, described
	})
	for _, c := range cases {
		c.child.finish(t)
		var numbers []int
		for _, f := range failedRows(t, c.site.pool) {
			var m peril
			if err := json.Unmarshal(f.Body, &m); err != nil {
				t.Fatal(err)
			}
			numbers = append(numbers, m.N)
			if !slices.ContainsFunc(f.Chain, func(link string) bool { return strings.Contains(link, sqlq.ErrCrashed.Error()) }) {
				t.Errorf("%s: message %d failed with %q, chain %q: not ErrCrashed", c.name, m.N, f.Message, f.Chain)
			}
			if f.Attempts != 3 {
				t.Errorf("%s: message %d failed after %d attempts, want the policy's 3", c.name, m.N, f.Attempts)
			}
			if f.Headers != nil && strings.Contains(*f.Headers, "sqlq-crashes") {
				t.Errorf("%s: message %d keeps bookkeeping in its headers %s", c.name, m.N, *f.Headers)
			}
		}
		slices.Sort(numbers)
		if !slices.Equal(numbers, c.at) {
			t.Errorf("%s: messages %v failed, want %v and no neighbour", c.name, numbers, c.at)
		}
		table := "handled"
		if c.spec.InTx {
			table = "effect"
		}
		if n := count(t, c.site.pool, `SELECT count(DISTINCT n) FROM `+table); n != perilsEach-len(c.at) {
			t.Errorf("%s: %d neighbours were handled, want %d", c.name, n, perilsEach-len(c.at))
		}
		if c.spec.InTx && count(t, c.site.pool, `SELECT count(*) - count(DISTINCT n) FROM effect`) != 0 {
			t.Errorf("%s: a HandleTx handler took effect twice", c.name)
		}
		// A few deaths go uncounted: while nothing is suspected, or the server has not noticed the last one, and while several
		// messages are suspected; then three a message.
		if most := 6 + 3*len(c.at); c.starts > most {
			t.Errorf("%s: it took %d processes, want at most %d", c.name, c.starts, most)
		}
		t.Logf("%s: %d processes", c.name, c.starts)
	}
}
