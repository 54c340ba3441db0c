package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq"
)

// Stats says how an endpoint learns of messages, and counts what it did; the log says when LISTEN stops working and when
// it works again.
func TestStats(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	var said logged
	config := sqlq.WithStandbyEvery(sqlq.Config{Routes: choreRoute, Logger: slog.New(slog.NewTextHandler(&said, nil))}, time.Hour)
	client := open(t, pool, config)
	if s := client.Stats(); s.Listening || len(s.Endpoints) != 0 {
		t.Errorf("before Run: %+v", s)
	}
	endpoint := sqlq.Endpoint{Name: "house", Concurrency: 4, Retry: sqlq.RetryPolicy{Immediate: 1},
		Handlers: chores(func(_ context.Context, d *sqlq.Delivery[chore]) error {
			if d.Message.N < 0 {
				return sqlq.Unrecoverable(errors.New("below zero"))
			}
			return nil
		})}
	run(t, client, endpoint)
	waits := func(c *sqlq.Client, want sqlq.Waits) sqlq.EndpointStats {
		t.Helper()
		var e sqlq.EndpointStats
		eventually(t, fmt.Sprintf("the endpoint is %s", want), func() (bool, string) {
			s := c.Stats()
			if len(s.Endpoints) != 1 {
				return false, "not running"
			}
			e = s.Endpoints[0]
			return e.Waits == want && s.Listening == (want != sqlq.Polls), string(e.Waits)
		})
		return e
	}
	waits(client, sqlq.Notified)
	other := open(t, pool, config)
	run(t, other, endpoint)
	waits(other, sqlq.OnCall)

	sender := open(t, pool, config)
	for n := range 3 {
		if err := sender.Send(t.Context(), chore{N: n - 1}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all settled", func() (bool, string) {
		a, b := statsOf(client), statsOf(other)
		return a.Handled+b.Handled == 2 && a.Failed+b.Failed == 1 && a.Wakes+b.Wakes > 0 && a.Received+b.Received >= 3, fmt.Sprintf("%+v %+v", a, b)
	})

	// Without a connection that listens it polls, says so, and says when it has one again.
	execSQL(t, pool, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sqlq listen' AND datname = current_database()`)
	eventually(t, "the log says it", func() (bool, string) {
		text := said.all()
		return strings.Contains(text, "lost the database") && strings.Contains(text, "the database is back"), text
	})
	eventually(t, "one of them is notified again", func() (bool, string) {
		a, b := statsOf(client).Waits, statsOf(other).Waits
		return a == sqlq.Notified || b == sqlq.Notified, fmt.Sprint(a, b)
	})
}
