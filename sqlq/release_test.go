package sqlq_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// A leased message of an instance that lives, released by an operator, is handled again, and what the handler that had it
// returns is dropped, whether it returns first or last: the message is settled once, and what is sent for it is sent once.
func TestReleasedLeaseIsSettledOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := twoQueues(t, url)
	o := ops.New(granted(t, url, "operator"), "sqlq").By(ops.Actor{OSUser: "ann", Reason: "it hangs"})
	for _, first := range []bool{true, false} {
		var said logged
		c := open(t, admin, sqlq.Config{Logger: said.logger(), HoldLimit: 10 * time.Millisecond})
		visits := make(chan chan struct{}, 2)
		stop := run(t, c, sqlq.Endpoint{Name: "mine", Concurrency: 2, Handlers: []sqlq.Handler{
			sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error {
				release := make(chan struct{})
				visits <- release
				<-release
				return d.Send(letter{N: 1}, sqlq.To("theirs"))
			}),
		}})
		id := sqlq.NewID()
		if err := c.Send(t.Context(), letter{}, sqlq.To("mine"), sqlq.WithID(id)); err != nil {
			t.Fatal(err)
		}
		older := <-visits
		eventuallyCount(t, admin, 1, `SELECT count(*) FROM sqlq.leased`)
		leases, err := o.Leases.List(t.Context(), ops.LeaseFilter{Queue: "mine"})
		if err != nil || len(leases) != 1 || leases[0].Message != id.String() || leases[0].State != ops.InstanceRunning {
			t.Fatalf("Leases: %+v, %v", leases, err)
		}
		released, err := o.Leases.Release(t.Context(), ops.LeaseFilter{Names: []string{id.String()}})
		if err != nil || released != (ops.Released{Released: 1}) {
			t.Fatalf("Leases.Release: %+v, %v", released, err)
		}
		younger := <-visits
		eventuallyCount(t, admin, 1, `SELECT count(*) FROM sqlq.leased WHERE lease > $1 AND coalesce(headers::text, '') NOT LIKE '%crashes%'`, leases[0].Number)
		if !first {
			older, younger = younger, older
		}
		close(older)
		late := func() (bool, string) {
			return strings.Count(said.all(), "after its message was given to another receiver") == 1, said.all()
		}
		if first {
			eventually(t, "the older handler's result is dropped", late)
		} else {
			eventuallyCount(t, admin, 0, `SELECT count(*) FROM sqlq.leased`)
		}
		close(younger)
		eventually(t, "the older handler's result is dropped", late)
		eventuallyCount(t, admin, 0, `SELECT (SELECT count(*) FROM sqlq.leased) + (SELECT count(*) FROM sqlq.q_mine)`)
		if n := count(t, admin, `SELECT count(*) FROM sqlq.q_theirs`); n != 1 {
			t.Errorf("first %v: sent %d times, want once", first, n)
		}
		eventually(t, "it is counted once", func() (bool, string) { // which the process does when the commit has come back
			n := statsOf(c).Handled
			return n == 1, fmt.Sprintf("first %v: handled %d", first, n)
		})
		execSQL(t, admin, `DELETE FROM sqlq.q_theirs`)
		stop()
	}
	var got string
	if err := admin.QueryRow(t.Context(), `SELECT string_agg(concat_ws(' ', o.kind, o.status, o.wanted, o.done, o.os_user, o.reason, h.what, h.queue, h.attempts), '; ')
		FROM sqlq.operation o JOIN sqlq.history h ON h.operation = o.id`).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if one := "release done 1 1 ann it hangs release mine 0"; got != one+"; "+one {
		t.Errorf("the record is %q", got)
	}
}

// What is handled in a transaction is left alone; the messages of the dead are marked, and others are not.
func TestReleaseLeases(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := twoQueues(t, url)
	execSQL(t, admin, `INSERT INTO sqlq.instance (endpoint, host, pid, version, concurrency, session_lock, lease_time, heartbeat_at, crashed_at) VALUES
		('mine', 'h1', 1, '', 1, false, interval '1 hour', now(), NULL), ('mine', 'h2', 2, '', 1, false, interval '1 second', now() - interval '1 minute', NULL),
		('mine', 'h3', 3, '', 1, false, interval '1 hour', now(), now())`)
	lease := func(instance int, queue string, n int, headers string) {
		execSQL(t, admin, `INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, headers, body)
			SELECT $1, $2, n, sqlq.uuid_v7(), now(), 3, 'post.Letter', nullif($4, '')::json, '{}' FROM generate_series(1, $3) n`, instance, queue, n, headers)
	}
	lease(1, "mine", 1, `{"a": "b"}`)
	lease(2, "mine", 1, `{"a": "b"}`)
	lease(3, "mine", 1, `{"a": "b","sqlq-crashes":"2"}`)
	lease(9, "mine", 1, `["no object"]`)
	lease(1, "theirs", 1, "")
	lease(9, "theirs", 2500, "")
	ctx := t.Context()
	o := ops.New(granted(t, url, "operator", "mine"), "sqlq")
	if leases, err := o.Leases.List(ctx, ops.LeaseFilter{}); err != nil || len(leases) != 4 || leases[1].State != ops.InstanceLate || leases[3].State != ops.InstanceGone {
		t.Errorf("leases that an operator of one queue sees: %+v, %v", leases, err)
	}

	tx, err := admin.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx)
	if _, err := tx.Exec(ctx, `SELECT FROM sqlq.leased WHERE instance = 9 AND queue = 'mine' FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	released, err := o.Leases.Release(ctx, ops.LeaseFilter{})
	if err != nil || released != (ops.Released{Released: 3, Busy: 1}) {
		t.Errorf("with one that is busy: %+v, %v", released, err)
	}
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	released, err = o.Leases.Release(ctx, ops.LeaseFilter{Queue: "mine", Instance: 9, Type: "post.Letter"})
	if err != nil || released != (ops.Released{Released: 1}) {
		t.Errorf("the one that was busy: %+v, %v", released, err)
	}
	rows, err := admin.Query(ctx, `SELECT headers::text || attempt FROM sqlq.q_mine ORDER BY seq`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	want := `[{"a": "b"}3 {"a": "b","sqlq-crashes":"0"}3 {"a": "b","sqlq-crashes":"2"}3 ["no object"]3]`
	if err != nil || fmt.Sprint(got) != want {
		t.Errorf("released: %v, %v, want %s", got, err, want)
	}
	released, err = ops.New(admin, "sqlq").Leases.Release(ctx, ops.LeaseFilter{})
	if err != nil || released != (ops.Released{Released: 2501}) {
		t.Errorf("more than a batch: %+v, %v", released, err)
	}
	if n := count(t, admin, `SELECT count(*) FROM sqlq.q_theirs WHERE headers::text = '{"sqlq-crashes":"0"}'`); n != 2500 {
		t.Errorf("%d are marked, want 2500", n)
	}
	if n := count(t, admin, `SELECT count(*) FROM sqlq.history`); n != 2505 {
		t.Errorf("%d changes are written down, want 2505", n)
	}
	if n := count(t, admin, `SELECT count(*) FROM sqlq.operation WHERE status = 'done' AND ended_at IS NOT NULL`); n != 3 {
		t.Errorf("%d operations are written down, want 3", n)
	}
}
