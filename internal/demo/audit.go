package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// The audit compares the input file with the business tables, in SQL. It uses no part of sqlq: not the library, not the
// Go types that the services share, not the order in which the story believes things happened. It loads the lines of
// the file as they are and recalculates everything.

// report is what the audit found.
type report struct {
	placed, billed, shipped int64 // orders of the file that are in the table
	points, pointsDue       int64
	lost                    int64 // missing rows
	duplicated              int64 // surplus rows
	wrong                   int64 // rows that disagree with the file, or belong to no order in it
	leftOver                int64 // messages anywhere in sqlq's tables
	faults                  []string
}

// maxFaults limits how many faults an audit names.
const maxFaults = 10

// err returns nil if the audit found no fault.
func (r report) err() error {
	if r.lost+r.duplicated+r.wrong+r.leftOver == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d lost, %d duplicated, %d wrong, %d messages left: %s",
		ErrAudit, r.lost, r.duplicated, r.wrong, r.leftOver, strings.Join(r.faults, "; "))
}

// ErrAudit is returned by Run when the audit finds faults in the business tables. The Result has the counts.
var ErrAudit = errors.New("the audit failed")

// audit reads everything in the transaction's snapshot. It changes nothing but temporary tables, which are dropped with it.
func audit(ctx context.Context, tx pgx.Tx, file []byte) (r report, err error) {
	if err := loadFile(ctx, tx, file); err != nil {
		return r, err
	}
	if _, err := tx.Exec(ctx, expectedRows); err != nil {
		return r, fmt.Errorf("calculate the expected rows: %w", err)
	}
	if _, err := tx.Exec(ctx, actualRows); err != nil {
		return r, fmt.Errorf("read the actual rows: %w", err)
	}
	if err := r.count(ctx, tx); err != nil {
		return r, err
	}
	if err := r.compare(ctx, tx); err != nil {
		return r, err
	}
	return r, r.lookForMessages(ctx, tx)
}

// loadFile copies the JSON lines into the table input.
func loadFile(ctx context.Context, tx pgx.Tx, file []byte) error {
	if _, err := tx.Exec(ctx, `CREATE TEMP TABLE input (line jsonb NOT NULL) ON COMMIT DROP`); err != nil {
		return fmt.Errorf("create a table for the input: %w", err)
	}
	lines := bytes.Split(bytes.TrimSpace(file), []byte("\n"))
	_, err := tx.CopyFrom(ctx, pgx.Identifier{"input"}, []string{"line"}, pgx.CopyFromSlice(len(lines), func(i int) ([]any, error) {
		return []any{lines[i]}, nil
	}))
	if err != nil {
		return fmt.Errorf("load the input: %w", err)
	}
	return nil
}

// expectedRows is what follows from the file: a row for each order in each place, with its expected content. The total is
// calculated from the lines. Points are due for the orders that were written after Loyalty had subscribed; at that moment
// no order was in flight.
const expectedRows = `
	CREATE TEMP TABLE expected ON COMMIT DROP AS
	WITH bought AS (
		SELECT line, line->>'id' AS order_id, line->'customer'->>'id' AS customer_id, line->>'currency' AS currency,
			b.articles, b.subtotal, b.subtotal - coalesce((line->'discount'->>'amount')::bigint, 0) + (line->>'shipping')::bigint AS total
		FROM input, LATERAL (
			SELECT sum((l->>'quantity')::bigint)::bigint AS articles, sum((l->>'quantity')::bigint * (l->>'unit_price')::bigint)::bigint AS subtotal
			FROM jsonb_array_elements(line->'lines') l) b
	)
	SELECT 'orders' AS place, order_id, jsonb_build_object('customer_id', customer_id, 'customer', line->'customer'->'name',
		'currency', currency, 'subtotal', subtotal, 'total', total, 'note', line->'note', 'lines', line->'lines') AS content
	FROM bought
	UNION ALL
	SELECT 'invoices', order_id, jsonb_build_object('customer_id', customer_id, 'currency', currency, 'amount', total)
	FROM bought
	UNION ALL
	SELECT 'shipments', order_id, jsonb_build_object('recipient', line->'ship_to'->'recipient', 'street', line->'ship_to'->'lines',
		'postal_code', coalesce(line->'ship_to'->>'postal_code', ''), 'city', line->'ship_to'->'city',
		'region', coalesce(line->'ship_to'->>'region', ''), 'country', line->'ship_to'->'country',
		'gift_message', line->>'gift_message', 'articles', articles)
	FROM bought
	UNION ALL
	SELECT 'points', order_id, jsonb_build_object('customer_id', customer_id, 'points', articles)
	FROM bought
	WHERE order_id IN (
		SELECT o.order_id FROM ` + shopSchema + `.orders o
		WHERE o.written_at > (SELECT s.created_at FROM ` + queueSchema + `.subscription s WHERE s.queue = 'loyalty' AND s.type = 'sales.OrderPlaced'))`

// actualRows is what the business tables contain, in the same form.
const actualRows = `
	CREATE TEMP TABLE actual ON COMMIT DROP AS
	SELECT 'orders' AS place, order_id, jsonb_build_object('customer_id', customer_id, 'customer', customer,
		'currency', currency, 'subtotal', subtotal, 'total', total, 'note', note, 'lines', (
			SELECT coalesce(jsonb_agg(jsonb_build_object('sku', sku, 'title', title, 'quantity', quantity, 'unit_price', unit_price)
				ORDER BY position), '[]')
			FROM ` + shopSchema + `.order_lines l WHERE l.order_id = o.order_id)) AS content
	FROM ` + shopSchema + `.orders o
	UNION ALL
	SELECT 'invoices', order_id, jsonb_build_object('customer_id', customer_id, 'currency', currency, 'amount', amount)
	FROM ` + shopSchema + `.invoices
	UNION ALL
	SELECT 'shipments', order_id, jsonb_build_object('recipient', recipient, 'street', street, 'postal_code', postal_code,
		'city', city, 'region', region, 'country', country, 'gift_message', gift_message, 'articles', articles)
	FROM ` + shopSchema + `.shipments
	UNION ALL
	SELECT 'points', order_id, jsonb_build_object('customer_id', customer_id, 'points', points)
	FROM ` + shopSchema + `.points`

func (r *report) count(ctx context.Context, tx pgx.Tx) error {
	err := tx.QueryRow(ctx, `
		SELECT count(DISTINCT a.order_id) FILTER (WHERE a.place = 'orders'),
			count(DISTINCT a.order_id) FILTER (WHERE a.place = 'invoices'),
			count(DISTINCT a.order_id) FILTER (WHERE a.place = 'shipments'),
			count(DISTINCT a.order_id) FILTER (WHERE a.place = 'points'),
			(SELECT count(*) FROM expected WHERE place = 'points')
		FROM actual a JOIN expected e USING (place, order_id)`).Scan(&r.placed, &r.billed, &r.shipped, &r.points, &r.pointsDue)
	if err != nil {
		return fmt.Errorf("count the rows: %w", err)
	}
	return nil
}

// compare looks for orders that are not exactly once in each place, with the expected content.
func (r *report) compare(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `
		SELECT place, order_id, coalesce(a.rows, 0), e.order_id IS NOT NULL, coalesce(a.content = e.content, false)
		FROM expected e FULL JOIN (
			SELECT place, order_id, count(*) AS rows, (array_agg(content))[1] AS content FROM actual GROUP BY place, order_id
		) a USING (place, order_id)
		WHERE a.rows IS DISTINCT FROM 1 OR a.content IS DISTINCT FROM e.content
		ORDER BY place, order_id`)
	if err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	var place, order string
	var n int64
	var expected, same bool
	_, err = pgx.ForEachRow(rows, []any{&place, &order, &n, &expected, &same}, func() error {
		switch {
		case !expected:
			r.wrong += n
			r.fault("order %s should not be in %s", order, place)
		case n == 0:
			r.lost++
			r.fault("order %s is lost from %s", order, place)
		case n > 1:
			r.duplicated += n - 1
			r.fault("order %s is in %s %d times", order, place, n)
		case !same:
			r.wrong++
			r.fault("order %s is wrong in %s", order, place)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	return nil
}

// lookForMessages counts the rows of every table in which sqlq keeps messages, as listed by the catalogue.
func (r *report) lookForMessages(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `
		SELECT c.relname, format('SELECT count(*) FROM %I.%I', n.nspname, c.relname)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relkind = 'r' AND (c.relname LIKE 'q\_%' OR c.relname IN ('delayed', 'leased', 'error'))
		ORDER BY c.relname`, queueSchema)
	if err != nil {
		return fmt.Errorf("list sqlq's tables: %w", err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Name, Count string }])
	if err != nil {
		return fmt.Errorf("list sqlq's tables: %w", err)
	}
	for _, table := range tables {
		var n int64
		if err := tx.QueryRow(ctx, table.Count).Scan(&n); err != nil {
			return fmt.Errorf("count the messages in %s: %w", table.Name, err)
		}
		if r.leftOver += n; n > 0 {
			r.fault("messages in %s: %d", table.Name, n)
		}
	}
	return nil
}

func (r *report) fault(format string, args ...any) {
	switch len(r.faults) {
	case maxFaults:
		r.faults = append(r.faults, "and more")
	default:
		if len(r.faults) < maxFaults {
			r.faults = append(r.faults, fmt.Sprintf(format, args...))
		}
	}
}
