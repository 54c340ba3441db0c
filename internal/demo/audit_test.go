package demo

import (
	"bytes"
	"context"
	"go/parser"
	"go/token"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/testdata"
)

func TestAudit(t *testing.T) {
	t.Parallel()
	const orders, early = 60, 40 // Loyalty subscribes after the early ones
	file := bytes.Join(bytes.SplitAfter(testdata.Orders, []byte("\n"))[:orders], nil)
	d, err := openDatabase(t.Context(), pgtest.Empty(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := d.connect(t.Context(), "test", 2)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	exec := func(db interface {
		Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	}, sql string, args ...any) {
		t.Helper()
		if _, err := db.Exec(t.Context(), sql, args...); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}

	all, err := ReadOrders(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range all {
		if i == early {
			exec(pool, `SELECT sqlq_demo.create_queue(q) FROM unnest(ARRAY['sales', 'loyalty']) q`)
			exec(pool, `INSERT INTO sqlq_demo.subscription (type, queue) VALUES ('sales.OrderPlaced', 'loyalty')`)
		}
		err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error { return writeOrder(t.Context(), tx, o) })
		if err != nil {
			t.Fatal(err)
		}
		placed := &sqlq.Delivery[OrderPlaced]{Message: o.placed()}
		if err := (shipping{pool: pool}).shipOrder(t.Context(), placed); err != nil {
			t.Fatal(err)
		}
		err = pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			if i >= early {
				if err := givePoints(t.Context(), tx, placed); err != nil {
					return err
				}
			}
			return billOrder(t.Context(), tx, placed)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	first, last := all[0].ID, all[orders-1].ID

	complete := report{placed: orders, billed: orders, shipped: orders, points: orders - early, pointsDue: orders - early}
	for _, tt := range []struct {
		name, sql string
		want      func(r *report)
		fault     string
	}{
		{"nothing", ``, func(*report) {}, ""},
		{"a lost shipment", `DELETE FROM sqlq_demo_shop.shipments WHERE order_id = '` + first + `'`,
			func(r *report) { r.shipped--; r.lost = 1 }, "order " + first + " is lost from shipments"},
		{"a second invoice", `INSERT INTO sqlq_demo_shop.invoices SELECT * FROM sqlq_demo_shop.invoices WHERE order_id = '` + first + `'`,
			func(r *report) { r.duplicated = 1 }, "order " + first + " is in invoices 2 times"},
		{"three of everything", `INSERT INTO sqlq_demo_shop.orders SELECT o.* FROM sqlq_demo_shop.orders o, generate_series(1, 2) WHERE order_id = '` + first + `'`,
			func(r *report) { r.duplicated = 2 }, "order " + first + " is in orders 3 times"},
		{"a lost order", `DELETE FROM sqlq_demo_shop.orders WHERE order_id = '` + first + `'`,
			func(r *report) { r.placed--; r.lost = 1 }, "order " + first + " is lost from orders"},
		{"lost points", `DELETE FROM sqlq_demo_shop.points WHERE order_id = '` + last + `'`,
			func(r *report) { r.points--; r.lost = 1 }, "order " + last + " is lost from points"},
		{"points that were not due", `INSERT INTO sqlq_demo_shop.points VALUES ('` + first + `', 'C-1', 1)`,
			func(r *report) { r.wrong = 1 }, "order " + first + " should not be in points"},
		{"an unknown order", `INSERT INTO sqlq_demo_shop.invoices VALUES ('SO-0', 'C-1', 'EUR', 1)`,
			func(r *report) { r.wrong = 1 }, "order SO-0 should not be in invoices"},
		{"a wrong total", `UPDATE sqlq_demo_shop.orders SET total = total + 1 WHERE order_id = '` + first + `'`,
			func(r *report) { r.wrong = 1 }, "order " + first + " is wrong in orders"},
		{"a wrong amount", `UPDATE sqlq_demo_shop.invoices SET amount = amount / 100 WHERE order_id = '` + first + `'`,
			func(r *report) { r.wrong = 1 }, "order " + first + " is wrong in invoices"},
		{"a lost line", `DELETE FROM sqlq_demo_shop.order_lines WHERE order_id = '` + first + `' AND position = 1`,
			func(r *report) { r.wrong = 1 }, "order " + first + " is wrong in orders"},
		{"an empty gift card instead of none", `UPDATE sqlq_demo_shop.shipments SET gift_message = '' WHERE gift_message IS NULL AND order_id = '` + noGift(t, all) + `'`,
			func(r *report) { r.wrong = 1 }, "is wrong in shipments"},
		{"a message in a queue", `SELECT sqlq_demo.send('sales', 'T', '{}')`,
			func(r *report) { r.leftOver = 1 }, "messages in q_sales: 1"},
		{"a delayed message", `SELECT sqlq_demo.send('sales', 'T', '{}', delay => '1 hour')`,
			func(r *report) { r.leftOver = 1 }, "messages in delayed: 1"},
		{"a leased message", `INSERT INTO sqlq_demo.leased (instance, queue, seq, id, sent_at, attempt, type, body) VALUES (1, 'sales', 1, gen_random_uuid(), now(), 1, 'T', '')`,
			func(r *report) { r.leftOver = 1 }, "messages in leased: 1"},
		{"an archived message", `INSERT INTO sqlq_demo.error (id, status, queue, endpoint, host, type, body, attempts, sent_at, first_failed_at, error_type, message, fingerprint)
			VALUES (gen_random_uuid(), 'archived', 'sales', 'sales', '', 'T', '', 1, now(), now(), '', '', '')`,
			func(r *report) { r.leftOver = 1 }, "messages in error: 1"},
		{"more faults than it lists", `DELETE FROM sqlq_demo_shop.invoices`,
			func(r *report) { r.billed, r.lost = 0, orders }, "and more"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tx, err := pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback(t.Context())
			exec(tx, tt.sql)
			got, err := audit(t.Context(), tx, file)
			if err != nil {
				t.Fatal(err)
			}
			faults := strings.Join(got.faults, "; ")
			if !strings.Contains(faults, tt.fault) || (tt.fault == "") != (faults == "") {
				t.Errorf("faults %q, want %q", faults, tt.fault)
			}
			if (got.err() == nil) != (tt.fault == "") {
				t.Errorf("error %v", got.err())
			}
			want := complete
			tt.want(&want)
			want.faults = got.faults
			if g, w := summary(got), summary(want); g != w {
				t.Errorf("found %v, want %v", g, w)
			}
		})
	}
}

// summary is the comparable part of a report.
func summary(r report) [9]int64 {
	return [9]int64{r.placed, r.billed, r.shipped, r.points, r.pointsDue, r.lost, r.duplicated, r.wrong, r.leftOver}
}

// noGift returns the id of an order that is not a gift.
func noGift(t *testing.T, orders []Order) string {
	t.Helper()
	for _, o := range orders {
		if o.GiftMessage == nil {
			return o.ID
		}
	}
	t.Fatal("every order is a gift")
	return ""
}

// The audit would prove little if it used what it audits.
func TestAuditDoesNotUseTheLibrary(t *testing.T) {
	t.Parallel()
	f, err := parser.ParseFile(token.NewFileSet(), "audit.go", nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range f.Imports {
		if strings.Contains(i.Path.Value, "sqlq") {
			t.Errorf("audit.go imports %s", i.Path.Value)
		}
	}
}
