package ops_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops"
)

func TestPause(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	listener, err := pgx.ConnectConfig(t.Context(), d.pool.Config().ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close(context.WithoutCancel(t.Context()))
	channel := d.text(`SELECT 'sqlq_' || 'sqlq.queue'::regclass::oid`)
	if _, err := listener.Exec(t.Context(), `LISTEN `+channel); err != nil {
		t.Fatal(err)
	}
	told := func(what string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if n, err := listener.WaitForNotification(ctx); err != nil || n.Channel != channel {
			t.Errorf("%s: the receivers are not told: %v", what, err)
		}
	}
	ann := d.By(ops.Actor{OSUser: "ann", Host: "h1", Reason: "the bank is down"})
	if changed, err := ann.Queues.Pause(t.Context(), "sales"); err != nil || !changed {
		t.Errorf("pause: %v, err %v", changed, err)
	}
	told("pause")
	if changed, err := d.Queues.Pause(t.Context(), "sales"); err != nil || changed {
		t.Errorf("again: %v, err %v", changed, err)
	}
	q, err := d.Queues.Show(t.Context(), "sales")
	if err != nil || q.PausedAt == nil || q.PausedBy != "ann: the bank is down" {
		t.Errorf("shown: %+v, err %v", q, err)
	}
	if changed, err := ann.Queues.Resume(t.Context(), "sales"); err != nil || !changed {
		t.Errorf("resume: %v, err %v", changed, err)
	}
	told("resume")
	if changed, err := d.Queues.Resume(t.Context(), "sales"); err != nil || changed {
		t.Errorf("again: %v, err %v", changed, err)
	}
	if got := d.text(`SELECT string_agg(concat_ws(' ', kind, status, queue, os_user, host, reason), ', ' ORDER BY id) FROM sqlq.operation`); got != "pause done sales ann h1 the bank is down, resume done sales ann h1 the bank is down" {
		t.Errorf("operations: %s", got)
	}
	var no *ops.NoQueueError
	if _, err := d.Queues.Pause(t.Context(), "slaes"); !errors.As(err, &no) || fmt.Sprint(no.Near) != "[sales]" {
		t.Errorf("a queue that is not there: err %v", err)
	}
}

// Rates are what the readings and the living instances say; an old reading counts only if nothing came since.
func TestQueueRates(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("fresh", "idle", "stale", "unread", "unused")
	d.exec(`SELECT sqlq.send(q, 'T', '{}') FROM unnest(ARRAY['fresh', 'idle', 'stale', 'stale', 'unread']) q`)
	d.exec(`INSERT INTO sqlq.traffic (queue, at, arrived, before_at, before) VALUES
		('fresh', now() + interval '1 hour', 150, now() + interval '1 hour' - interval '10 s', 50),
		('idle', now() - interval '1 hour', 1, now() - interval '2 hours', 1),
		('stale', now() - interval '1 hour', 1, now() - interval '2 hours', 1)`)
	d.exec(`INSERT INTO sqlq.instance (endpoint, host, pid, version, concurrency, session_lock, lease_time, rate, heartbeat_at, drained_at) VALUES
		('fresh', 'h', 1, 'v', 1, true, '1 day', 5.5, now(), NULL), ('fresh', 'h', 2, 'v', 1, true, '1 day', 1, now(), NULL),
		('fresh', 'h', 3, 'v', 1, true, '15 s', 7, now() - interval '1 hour', NULL), ('idle', 'h', 4, 'v', 1, true, '1 day', 3, now(), now())`)
	queues, err := d.Queues.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, q := range queues {
		in := "-"
		if q.In != nil {
			in = fmt.Sprint(*q.In)
		}
		got += fmt.Sprintf("%s %s %v %d\n", q.Name, in, q.Out, q.Instances)
	}
	if want := "fresh 10 6.5 2\nidle 0 0 0\nstale - 0 0\nunread - 0 0\nunused 0 0 0\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	q, err := d.Queues.Show(t.Context(), "fresh")
	if err != nil || len(q.Running) != 2 || q.Running[0].Rate != 5.5 || q.Size == 0 {
		t.Errorf("shown %+v, err %v", q, err)
	}
}
