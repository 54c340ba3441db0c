package query

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

// explained runs each statement as EXPLAIN and keeps what it says.
type explained struct {
	*pgx.Conn
	plans *[]string
}

func (e explained) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	rows, err := e.Conn.Query(ctx, `EXPLAIN `+sql, args...)
	if err != nil {
		return nil, err
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	*e.plans = append(*e.plans, strings.Join(lines, "\n"))
	return e.Conn.Query(ctx, sql, args...)
}

func (e explained) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, err := e.Query(ctx, sql, args...)
	if err == nil {
		rows.Close()
	}
	return e.Conn.QueryRow(ctx, sql, args...)
}

func (e explained) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return e.Conn.Exec(ctx, sql, args...)
}

// Lists and batches of failed messages read on along the index of what they ask for, in its order, and neither sort nor read the
// table, whether the role is the owner or one to which row security applies. A fifth of it is of one queue and failed in a row,
// long ago: whoever followed the time alone would pass all that failed since.
func TestFailedPlans(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	owner, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(context.WithoutCancel(t.Context()))
	role := `plans_of_` + owner.Config().Database
	for _, sql := range []string{
		`SELECT sqlq.create_queue('q' || n) FROM generate_series(0, 4) n`,
		`ALTER TABLE sqlq.error SET (autovacuum_enabled = off)`,
		`INSERT INTO sqlq.error (id, status, queue, endpoint, host, type, body, attempts, sent_at, first_failed_at, failed_at, error_type, message, fingerprint)
			SELECT gen_random_uuid(), CASE WHEN i % 7 = 0 THEN 'archived' ELSE 'failed' END, q, q, 'h', q || '.T', '{}', 1, at, at, at, 'e', 'm', q || '.g'
			FROM (SELECT i, timestamptz '2026-01-01' + i * interval '1 s' AS at, 'q' || CASE WHEN i BETWEEN 5000 AND 11000 THEN 4 ELSE i % 4 END AS q
				FROM generate_series(1, 30000) i) f`,
		`ANALYZE sqlq.error`,
		fmt.Sprintf(`CREATE ROLE %q LOGIN`, role),
		fmt.Sprintf(`SELECT sqlq.grant_role('%s', 'operator')`, role),
	} {
		if _, err := owner.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			t.Log(err)
			return
		}
		defer conn.Close(ctx)
		for _, sql := range []string{`DROP OWNED BY %q`, `DROP ROLE %q`} {
			if _, err := conn.Exec(ctx, fmt.Sprintf(sql, role)); err != nil {
				t.Log(err)
			}
		}
	})
	config := owner.Config().Copy()
	config.User = role
	operator, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer operator.Close(context.WithoutCancel(t.Context()))
	s := New("sqlq")
	since := Moment{At: time.Date(2026, 1, 1, 1, 0, 0, 0, time.UTC)}
	for _, c := range []struct {
		index  string
		filter Filter
	}{
		{"error_status_time", Filter{Status: "failed"}},
		{"error_status_time", Filter{}},
		{"error_status_time", Filter{Status: "failed", Since: since}},
		{"error_status_queue", Filter{Status: "failed", Queue: "q1"}},
		{"error_status_queue", Filter{Status: "failed", Queue: "q4"}},
		{"error_status_queue", Filter{Queue: "q4", Since: since}},
		{"error_status_queue", Filter{Status: "failed", Queues: []string{"q1", "q4"}}},
		{"error_status_type", Filter{Status: "failed", Type: "q4.T"}},
		{"error_status_type", Filter{Status: "archived", Type: "q2.T", Since: since}},
		{"error_status_group", Filter{Status: "failed", Fingerprint: "q4.g"}},
		{"error_status_group", Filter{Fingerprint: "q2.g", Since: since}},
	} {
		for who, conn := range map[string]*pgx.Conn{"owner": owner, "operator": operator} {
			var plans []string
			db := explained{conn, &plans}
			key := &FailedKey{since.At, 3600}
			for _, scan := range []FailedScan{{Look: 100, Limit: 51}, {Look: 100, Limit: 51, Oldest: true, UpTo: 30000}, {Look: 100, Limit: 51, After: key}} {
				if _, err := s.NextFailed(t.Context(), db, c.filter, scan); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.PlannedFailed(t.Context(), db, c.filter, nil, nil, 30000, 5, false); err != nil {
				t.Fatal(err)
			}
			if _, err := s.NewestPlanned(t.Context(), db, c.filter, nil, 30000, 10); err != nil {
				t.Fatal(err)
			}
			if _, _, err := s.LookAhead(t.Context(), db, c.filter, key, 30000, 100, 16<<20); err != nil {
				t.Fatal(err)
			}
			for _, plan := range plans {
				if !strings.Contains(plan, "using "+c.index) || strings.Contains(plan, "Seq Scan on error") || strings.Contains(plan, "Bitmap") {
					t.Errorf("%+v, as %s, does not go along %s:\n%s", c.filter, who, c.index, plan)
				}
			}
		}
	}
}
