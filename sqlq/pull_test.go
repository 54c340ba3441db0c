package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
)

// pullSite is a queue "post" with a client that receives from it.
func pullSite(t *testing.T, config sqlq.Config) (*sqlq.Client, *pgxpool.Pool) {
	t.Helper()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['post', 'after']) q`)
	config.Routes = map[string]string{"post.Letter": "post", "post.Hop": "after"}
	return pullClient(t, pool, config), pool
}

// pullClient opens a client that is closed at the end of the test, with what is outstanding.
func pullClient(t *testing.T, pool *pgxpool.Pool, config sqlq.Config) *sqlq.Client {
	t.Helper()
	c := open(t, pool, config)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = c.Close(ctx)
	})
	return c
}

func sendLetters(t *testing.T, c *sqlq.Client, n int) {
	t.Helper()
	var ms []sqlq.Message
	for i := range n {
		ms = append(ms, letter{N: i})
	}
	if err := c.SendMany(t.Context(), ms); err != nil {
		t.Fatal(err)
	}
}

// pull receives up to n messages of the queue "post".
func pull(t *testing.T, c *sqlq.Client, n int) []*sqlq.Received {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got, err := c.Receive(ctx, "post", n)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) == 0 || len(got) > n {
		t.Fatalf("%d messages, of %d that were asked for", len(got), n)
	}
	return got
}

// pullAll receives exactly n.
func pullAll(t *testing.T, c *sqlq.Client, n int) (all []*sqlq.Received) {
	t.Helper()
	for len(all) < n {
		all = append(all, pull(t, c, n-len(all))...)
	}
	return all
}

// free counts the messages of the queue "post" that nobody has.
func free(t *testing.T, pool *pgxpool.Pool) int {
	return count(t, pool, `SELECT count(*) FROM (SELECT FROM sqlq.q_post FOR UPDATE SKIP LOCKED) free`)
}

// Receive takes as many messages as are asked for, and leaves the others to others. What is outstanding is ended in any order, by any
// goroutine; when Done returns that is committed, with what the message has sent.
func TestReceiveAndDone(t *testing.T) {
	t.Parallel()
	c, pool := pullSite(t, sqlq.Config{})
	sendLetters(t, c, 10)
	first := pullAll(t, c, 4)
	eventually(t, "no more than was asked for is taken", func() (bool, string) { n := free(t, pool); return n == 6, fmt.Sprint(n, " free") })
	second := pullAll(t, c, 5)
	seen := map[int]bool{}
	for _, r := range append(first, second...) {
		var m letter
		if err := r.Decode(&m); err != nil || string(r.Body) != fmt.Sprintf(`{"N":%d}`, m.N) || r.Attempt != 1 || r.Type != "post.Letter" || r.Headers == nil || seen[m.N] {
			t.Errorf("%+v, body %s, attempt %d, headers %v: %v", m, r.Body, r.Attempt, r.Headers, err)
		}
		seen[m.N] = true
		if err := r.Send(hop{Left: m.N}); err != nil {
			t.Error(err)
		}
	}
	var done sync.WaitGroup
	for _, r := range second {
		done.Go(func() {
			if err := r.Done(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	if n := count(t, pool, `SELECT count(*) FROM sqlq.q_after`); n != 5 {
		t.Errorf("after 5 were done %d messages are sent", n)
	}
	for i := len(first) - 1; i >= 0; i-- {
		if err := first[i].Done(t.Context()); err != nil {
			t.Error(err)
		}
		if n := count(t, pool, `SELECT (SELECT count(*) FROM sqlq.q_post) + (SELECT count(*) FROM sqlq.leased)`); n != i+1 {
			t.Errorf("after Done %d messages are left, want %d", n, i+1)
		}
		if err := first[i].Done(t.Context()); !errors.Is(err, sqlq.ErrSettled) {
			t.Errorf("Done again: %v, want ErrSettled", err)
		}
		if err := first[i].Fail(t.Context(), errors.New("no")); !errors.Is(err, sqlq.ErrSettled) {
			t.Errorf("Fail after Done: %v, want ErrSettled", err)
		}
	}
	if n := free(t, pool); n != 1 {
		t.Errorf("%d messages are left, want 1", n)
	}
}

// Fail is a handler's error: retried later, or for good in the error table. When it returns that is committed; what the message has
// sent is not.
func TestReceiveAndFail(t *testing.T) {
	t.Parallel()
	c, pool := pullSite(t, sqlq.Config{})
	sendLetters(t, c, 3)
	all := pullAll(t, c, 3)
	for _, r := range all {
		if err := r.Send(hop{}); err != nil {
			t.Error(err)
		}
	}
	if err := all[0].Fail(t.Context(), nil); err == nil {
		t.Error("Fail takes no error for one")
	}
	for i, how := range []error{errors.New("once more"), sqlq.RetryAfter(time.Hour, errors.New("later")), sqlq.Unrecoverable(errors.New("never"))} {
		if err := all[i].Fail(t.Context(), how); err != nil {
			t.Errorf("%v: %v", how, err)
		}
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.delayed WHERE attempt = 1 AND error = 'later'`); n != 1 {
		t.Error("the one to be retried later is not among the delayed")
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.error WHERE attempts = 1 AND message = 'never'`); n != 1 {
		t.Error("the one that has failed is not in the error table")
	}
	again := pull(t, c, 5)
	if len(again) != 1 || again[0].Attempt != 2 || again[0].ID != all[0].ID {
		t.Errorf("received %d, attempt %d", len(again), again[0].Attempt)
	}
	if err := again[0].Done(t.Context()); err != nil {
		t.Error(err)
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.q_after`); n != 0 {
		t.Errorf("%d messages were sent by attempts that failed", n)
	}
}

// GiveBack spends no attempt, at once or after a while, however often.
func TestReceiveAndGiveBack(t *testing.T) {
	t.Parallel()
	c, pool := pullSite(t, sqlq.Config{})
	sendLetters(t, c, 1)
	for range 20 {
		r := pull(t, c, 2)[0]
		if r.Attempt != 1 {
			t.Fatalf("attempt %d", r.Attempt)
		}
		if err := r.GiveBack(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := pull(t, c, 1)[0].GiveBack(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.delayed WHERE attempt = 0 AND due_at > now() + interval '59 min'`); n != 1 {
		t.Error("the message does not wait among the delayed")
	}
}

// What cannot be received from is refused, and nothing is created.
func TestReceiveRefuses(t *testing.T) {
	t.Parallel()
	c, pool := pullSite(t, sqlq.Config{})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, k := range []struct {
		queue string
		n     int
		ctx   context.Context
		want  error
	}{
		{"nowhere", 1, t.Context(), sqlq.ErrNoQueue}, {"no spaces", 1, t.Context(), sqlq.ErrInvalidName}, {"post", 0, t.Context(), nil}, {"post", -1, t.Context(), nil},
		{"post", 10_001, t.Context(), nil}, {"post", 1, ended, context.Canceled},
	} {
		if got, err := c.Receive(k.ctx, k.queue, k.n); err == nil || len(got) > 0 || k.want != nil && !errors.Is(err, k.want) {
			t.Errorf("Receive(%q, %d): %d messages, %v; want %v", k.queue, k.n, len(got), err, k.want)
		}
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.queue`); n != 2 {
		t.Errorf("%d queues, want 2", n)
	}
	stop := run(t, c, receiveLetters("post"))
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.instance`)
	if _, err := c.Receive(t.Context(), "post", 1); !errors.Is(err, sqlq.ErrAlreadyRunning) {
		t.Errorf("Receive beside an endpoint: %v, want ErrAlreadyRunning", err)
	}
	stop()
	sendLetters(t, c, 1)
	r := pull(t, c, 1)[0]
	if err := c.Run(t.Context(), receiveLetters("post")); !errors.Is(err, sqlq.ErrAlreadyRunning) {
		t.Errorf("Run beside Receive: %v, want ErrAlreadyRunning", err)
	}
	if err := r.Done(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := c.Receive(t.Context(), "post", 1); !errors.Is(err, sqlq.ErrClosed) {
		t.Errorf("Receive after Close: %v, want ErrClosed", err)
	}
}

// A Receive whose context ends holds nothing: what was on its way goes back with no attempt spent, and others get it.
func TestReceiveIsGivenUp(t *testing.T) {
	t.Parallel()
	c, pool := pullSite(t, sqlq.Config{})
	const messages = 200
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for n := range messages {
			if err := c.Send(context.Background(), letter{N: n}); err != nil {
				t.Error(err)
			}
		}
	}()
	var mu sync.Mutex
	seen := map[int]int{}
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := 0; ; i++ {
				mu.Lock()
				if len(seen) == messages {
					mu.Unlock()
					return
				}
				mu.Unlock()
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i%5+worker)*time.Millisecond)
				got, err := c.Receive(ctx, "post", 1+i%7)
				cancel()
				if err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
					return
				}
				for _, r := range got {
					var m letter
					if err := r.Decode(&m); err != nil || r.Attempt != 1 {
						t.Errorf("message %d, attempt %d: %v", m.N, r.Attempt, err)
					}
					mu.Lock()
					seen[m.N]++
					mu.Unlock()
					if err := r.Done(context.Background()); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	ended := make(chan struct{})
	go func() { all.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(2 * patience):
		mu.Lock()
		t.Fatalf("%d of %d messages were received", len(seen), messages)
	}
	<-sent
	for n, times := range seen {
		if times != 1 {
			t.Errorf("message %d was received %d times", n, times)
		}
	}
	if n := count(t, pool, `SELECT (SELECT count(*) FROM sqlq.q_post) + (SELECT count(*) FROM sqlq.leased) + (SELECT count(*) FROM sqlq.delayed) + (SELECT count(*) FROM sqlq.error)`); n != 0 {
		t.Errorf("%d messages are left", n)
	}
}

// With Close nobody gets messages any more, and what is outstanding may be ended until DrainTimeout; then it goes back with no attempt
// spent, and its Done says so.
func TestCloseWithMessagesOutstanding(t *testing.T) {
	t.Parallel()
	c, pool := pullSite(t, sqlq.Config{DrainTimeout: time.Second})
	sendLetters(t, c, 3)
	all := pullAll(t, c, 3)
	waits := make(chan error, 1)
	go func() {
		_, err := c.Receive(context.Background(), "post", 1)
		waits <- err
	}()
	closed := make(chan error, 1)
	go func() { closed <- c.Close(context.Background()) }()
	if err := <-waits; !errors.Is(err, sqlq.ErrClosed) {
		t.Errorf("the Receive that waits: %v, want ErrClosed", err)
	}
	if err := all[1].Done(t.Context()); err != nil {
		t.Errorf("Done while it drains: %v", err)
	}
	if err := <-closed; err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := all[0].Done(t.Context()); !errors.Is(err, sqlq.ErrLeaseLost) || !strings.Contains(err.Error(), "has gone back") {
		t.Errorf("Done after Close: %v, want ErrLeaseLost", err)
	}
	if err := all[2].Fail(t.Context(), errors.New("too late")); !errors.Is(err, sqlq.ErrLeaseLost) {
		t.Errorf("Fail after Close: %v, want ErrLeaseLost", err)
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.q_post WHERE attempt = 0`); n != 2 {
		t.Errorf("%d messages went back, want 2", n)
	}
}

// The instance ends when nobody has wanted anything for a while, and begins again.
func TestReceiveEndsByItself(t *testing.T) {
	t.Parallel()
	c, pool := pullSite(t, sqlq.Config{})
	for round := 1; round <= 2; round++ {
		sendLetters(t, c, 1)
		if err := pull(t, c, 1)[0].Done(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventuallyCount(t, pool, round, `SELECT count(*) FROM sqlq.instance WHERE drained_at IS NOT NULL`)
		eventuallyCount(t, pool, 0, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'sqlq %'`)
	}
}

// A Receive that waits is woken by a message of another process, and does not poll; others that wait too get theirs.
func TestReceiveIsWoken(t *testing.T) {
	t.Parallel()
	c, pool := pullSite(t, sqlq.Config{PollInterval: time.Hour})
	other := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Letter": "post"}})
	got := make(chan *sqlq.Received)
	for range 3 {
		go func() {
			all, err := c.Receive(t.Context(), "post", 1)
			if err != nil {
				t.Error(err)
			}
			for _, r := range all {
				got <- r
			}
		}()
	}
	eventually(t, "it sleeps", func() (bool, string) { n := asleep(t, pool, "sqlq", "post"); return n == 1, fmt.Sprint(n, " asleep") })
	for range 3 {
		sendLetters(t, other, 1)
		select {
		case r := <-got:
			if err := r.Done(t.Context()); err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatal("nobody is woken")
		}
	}
}
