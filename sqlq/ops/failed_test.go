package ops_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops"
)

func TestListFailed(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "billing")
	d.fail("sales", "g1", 3)
	d.fail("billing", "g2", 2)
	d.exec(`UPDATE sqlq.error SET type = 'sales.Cancel' WHERE seq = 2`)
	d.exec(`UPDATE sqlq.error SET status = 'archived', archived_at = now() WHERE seq = 3`)
	id := d.text(`SELECT id::text FROM sqlq.error WHERE seq = 5`)
	for _, c := range []struct {
		filter ops.Filter
		want   string
	}{
		{ops.Filter{}, "5 4 2 1"},
		{ops.Filter{Limit: 2}, "5 4"},
		{ops.Filter{Status: ops.StatusArchived}, "3"},
		{ops.Filter{Status: ops.StatusAny}, "5 4 3 2 1"},
		{ops.Filter{Queue: "sales"}, "2 1"},
		{ops.Filter{Type: "sales.Cancel"}, "2"},
		{ops.Filter{Group: "g2"}, "5 4"},
		{ops.Filter{Group: "g2", Queue: "sales"}, ""},
		{ops.Filter{Names: []string{"1", id, "99"}}, "5 1"},
		{ops.Filter{Names: []string{"1", "2"}, Type: "sales.Cancel"}, "2"},
	} {
		failed, err := d.Failed.List(t.Context(), c.filter)
		var got []string
		for _, m := range failed {
			got = append(got, fmt.Sprint(m.Number))
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%+v: got %v, err %v, want %s", c.filter, got, err, c.want)
		}
	}
	if _, err := d.Failed.List(t.Context(), ops.Filter{Names: []string{"twelve"}}); err == nil || !strings.Contains(err.Error(), `"twelve"`) {
		t.Errorf("a name that is none: err %v", err)
	}
	if _, err := d.Failed.List(t.Context(), ops.Filter{Status: "lost"}); err == nil || !strings.Contains(err.Error(), `"lost"`) {
		t.Errorf("a status that is none: err %v", err)
	}
}

func TestShowFailed(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.exec(`INSERT INTO sqlq.error (id, queue, endpoint, host, type, headers, body, attempts, replays, sent_at, expires_at,
			first_failed_at, failed_at, error_type, message, chain, stack, fingerprint)
		VALUES ('0198c0de-0000-7000-8000-000000000001', 'sales', 'sales-v2', 'h1', 'sales.PlaceOrder', '{"tenant":"north"}', '{"order":1}',
			7, 2, '2026-01-01T10:00:00Z', '2026-01-02T10:00:00Z', '2026-01-01T10:00:01Z', '2026-01-01T10:05:00Z',
			'*pq.Error', 'card refused', '{"*fmt.wrapError: charge: card refused","*pq.Error: card refused"}', 'goroutine 1', 'g1')`)
	for _, name := range []string{"1", "0198c0de-0000-7000-8000-000000000001", "0198C0DE00007000" + "8000000000000001"} {
		m, err := d.Failed.Show(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(m.Number, m.ID, m.Status, m.Queue, m.Endpoint, m.Host, m.Type, string(m.Headers), string(m.Body), m.Attempts, m.Replays,
			m.SentAt.UTC(), m.ExpiresAt.UTC(), m.FirstFailedAt.UTC(), m.FailedAt.UTC(), m.ArchivedAt, m.ErrorType, m.Error, len(m.Chain), m.Stack, m.Group)
		day := func(s string) time.Time { at, _ := time.Parse(time.RFC3339, s); return at.UTC() }
		want := fmt.Sprint(int64(1), "0198c0de-0000-7000-8000-000000000001", ops.StatusFailed, "sales", "sales-v2", "h1", "sales.PlaceOrder", `{"tenant":"north"}`, `{"order":1}`, 7, 2,
			day("2026-01-01T10:00:00Z"), day("2026-01-02T10:00:00Z"), day("2026-01-01T10:00:01Z"), day("2026-01-01T10:05:00Z"), (*time.Time)(nil), "*pq.Error", "card refused", 2, "goroutine 1", "g1")
		if got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}
	var none *ops.NoFailedError
	if _, err := d.Failed.Show(t.Context(), "2"); !errors.As(err, &none) {
		t.Errorf("one that is not there: err %v", err)
	}
	d.exec(`INSERT INTO sqlq.error (id, queue, endpoint, host, type, body, attempts, sent_at, first_failed_at, error_type, message, fingerprint)
		VALUES ('0198c0de-0000-7000-8000-000000000001', 'billing', 'billing', 'h', 'T', '', 1, now(), now(), 'e', 'm', 'g')`)
	if _, err := d.Failed.Show(t.Context(), "0198c0de-0000-7000-8000-000000000001"); err == nil || !strings.Contains(err.Error(), "1 (sales)") || !strings.Contains(err.Error(), "2 (billing)") {
		t.Errorf("an id of two: err %v", err)
	}
}

// Names that need quoting, of schema and queue, reach every statement.
func TestOddNames(t *testing.T) {
	t.Parallel()
	const schema = `My "odd" schéma'\`
	d := openOdd(t, schema)
	queue := "A.b-C_" + strings.Repeat("x", 54)
	d.create(queue)
	ids, err := d.Send(t.Context(), queue, ops.Outgoing{Type: "T"}, []byte(`{}`))
	if err != nil || len(ids) != 1 {
		t.Fatalf("sent %v, err %v", ids, err)
	}
	d.exec(fmt.Sprintf(`INSERT INTO %s (id, queue, endpoint, host, type, body, attempts, sent_at, first_failed_at, error_type, message, fingerprint)
		VALUES (gen_random_uuid(), $1, $1, 'h', 'T', '{}', 1, now(), now(), 'e', 'm', 'g')`, pgx.Identifier{schema, "error"}.Sanitize()), queue)
	if n, err := d.Failed.Replay(t.Context(), ops.Filter{All: true}, ops.ReplayOptions{}); n != 1 || err != nil {
		t.Errorf("replayed %d, err %v", n, err)
	}
	q, err := d.Queues.Show(t.Context(), queue)
	if err != nil || q.Ready.N != 2 {
		t.Errorf("show: %+v, err %v", q, err)
	}
	if m, err := d.Ready.List(t.Context(), queue, ops.Filter{Limit: 10}, ops.Looking{}); err != nil || len(m) != 2 {
		t.Errorf("peek: %v, err %v", m, err)
	}
	if p, err := d.Ready.Purge(t.Context(), queue, ops.Filter{}, ops.PurgeOptions{Delayed: true}); err != nil || p.Ready != 2 {
		t.Errorf("purge: %v, err %v", p, err)
	}
	if _, err := d.Queues.Drop(t.Context(), queue, false); err != nil {
		t.Errorf("drop: %v", err)
	}
}
