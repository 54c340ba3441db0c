package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// The heartbeat says what an instance has done and is doing, and handlers that run for too long are named in the log, once.
func TestHeartbeatCounts(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('box')`)
	var said logged
	c := open(t, pool, sqlq.Config{Routes: boxRoutes, Logger: said.logger(), LeaseTime: time.Second, HoldLimit: 10 * time.Millisecond})
	release := make(chan struct{})
	do := func(n int) error {
		switch n {
		case 1:
			return errors.New("never")
		case 2:
			<-release
		}
		return nil
	}
	stop := run(t, c, sqlq.Endpoint{Name: "box", Concurrency: 4, SlowAfter: 50 * time.Millisecond, Retry: noRetry, Handlers: []sqlq.Handler{
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[voucher]) error { return do(d.Message.N) }),
		sqlq.HandleTx(func(_ context.Context, _ pgx.Tx, d *sqlq.Delivery[ticket]) error { return do(d.Message.N) }),
	}})
	counters := func(want string) {
		t.Helper()
		eventually(t, want, func() (bool, string) {
			var got string
			if err := pool.QueryRow(t.Context(), `
				SELECT concat_ws(' ', 'handled', handled, 'failed', failed, 'in hand', in_hand, 'slow', slow, 'slowest', slowest >= interval '50 milliseconds')
				FROM sqlq.instance`).Scan(&got); err != nil {
				return false, err.Error()
			}
			return got == want, got
		})
	}
	var ms []sqlq.Message
	for range 5 {
		ms = append(ms, voucher{}, ticket{})
	}
	if err := c.SendMany(t.Context(), append(ms, voucher{1}, ticket{1}, voucher{1})); err != nil {
		t.Fatal(err)
	}
	counters("handled 10 failed 3 in hand 0 slow 0 slowest")
	eventually(t, "a rate is seen, and its end", func() (bool, string) {
		return count(t, pool, `SELECT count(*) FROM sqlq.instance WHERE rate = 0`) == 1, ""
	})
	if err := c.SendMany(t.Context(), []sqlq.Message{voucher{2}, ticket{2}}); err != nil {
		t.Fatal(err)
	}
	counters("handled 10 failed 3 in hand 2 slow 2 slowest t")
	beats(t, pool, "box")
	for _, kind := range []string{"box.Voucher", "box.Ticket"} {
		if n := strings.Count(said.all(), `"sqlq: a handler runs for long" endpoint=box type=`+kind); n != 1 {
			t.Errorf("the log names the handler of %s %d times, want once:\n%s", kind, n, said.all())
		}
	}
	close(release)
	counters("handled 12 failed 3 in hand 0 slow 0 slowest")
	if err := c.SendMany(t.Context(), ms); err != nil {
		t.Fatal(err)
	}
	eventually(t, "handled", func() (bool, string) { return statsOf(c).Handled == 22, fmt.Sprintf("%+v", c.Stats()) })
	stop()
	counters("handled 22 failed 3 in hand 0 slow 0 slowest")
	if n := count(t, pool, `SELECT count(*) FROM sqlq.instance WHERE drained_at IS NOT NULL`); n != 1 {
		t.Errorf("%d instances ended in order, want 1", n)
	}
}

// A role that was granted before there were counters, traffic, history and an inbox runs its endpoint as ever, and the log says what
// it may not do, once each.
func TestRoleGrantedBefore(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := twoQueues(t, url)
	role, pool := newRole(t, url, "consumer_")
	execSQL(t, admin, `SELECT sqlq.grant_role($1, 'consumer', ARRAY['mine'])`, role)
	for _, since := range []string{
		`UPDATE (handled, failed, in_hand, rate, slow, slowest, expired) ON sqlq.instance`, `SELECT ON sqlq.subscriber`,
		`EXECUTE ON FUNCTION sqlq.read_traffic, sqlq.forget_history, sqlq.backlog, sqlq.claim_messages, sqlq.settle_claims, sqlq.rotate_inbox`,
	} {
		execSQL(t, admin, `REVOKE `+since+` FROM `+pgx.Identifier{role}.Sanitize())
	}
	var said logged
	c := open(t, pool, sqlq.Config{Logger: said.logger(), LeaseTime: time.Second})
	stop := run(t, c, receiveLetters("mine"))
	if err := open(t, admin, sqlq.Config{}).Send(t.Context(), letter{}, sqlq.To("mine")); err != nil {
		t.Fatal(err)
	}
	eventuallyCount(t, admin, 0, `SELECT count(*) FROM sqlq.q_mine`)
	beats(t, admin, "mine")
	eventually(t, "the log says it", func() (bool, string) {
		text := said.all()
		return strings.Count(text, "may not") == 4, text
	})
	beats(t, admin, "mine")
	stop()
	eventuallyCount(t, admin, 1, `SELECT count(*) FROM sqlq.instance WHERE drained_at IS NOT NULL`)
	for _, what := range []string{"what its instances have done", "how much arrives", "forget ids of handled messages", "old records of operations"} {
		if n := strings.Count(said.all(), what); n != 1 {
			t.Errorf("%q is said %d times, want once:\n%s", what, n, said.all())
		}
	}
	if strings.Contains(said.all(), "housekeeping failed") {
		t.Errorf("it says\n%s", said.all())
	}
}

// The process that leads reads how much arrives, and forgets what operators did long ago, a piece at a time.
func TestUpkeep(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := twoQueues(t, url)
	execSQL(t, admin, `SELECT sqlq.send('mine', 'post.Letter', '{}') FROM generate_series(1, 3)`)
	execSQL(t, admin, `INSERT INTO sqlq.history (message, at, what, queue)
		SELECT gen_random_uuid(), clock_timestamp() - age, 'replay', 'mine' FROM generate_series(1, 1200), unnest(ARRAY[interval '31 days', interval '29 days']) age`)
	execSQL(t, admin, `INSERT INTO sqlq.operation (kind, status, ended_at)
		SELECT 'replay', 'done', clock_timestamp() - age FROM generate_series(1, 1200), unnest(ARRAY[interval '91 days', interval '89 days', NULL]) age`)
	c := open(t, granted(t, url, "consumer", "theirs"), sqlq.Config{})
	run(t, c, receiveLetters("theirs"))
	eventuallyCount(t, admin, 3, `SELECT coalesce(sum(arrived), 0) FROM sqlq.traffic WHERE queue = 'mine'`)
	eventuallyCount(t, admin, 1200, `SELECT count(*) FROM sqlq.history`)
	eventuallyCount(t, admin, 2400, `SELECT count(*) FROM sqlq.operation`)
	if n := count(t, admin, `SELECT count(*) FROM sqlq.history WHERE at < now() - interval '30 days'`); n != 0 {
		t.Errorf("%d old changes are left", n)
	}
}
