package sqlq_test

import (
	"context"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// Messages share transactions also where there are only HandleTx handlers and few run at a time. They are deleted by the
// very transaction that locked them: a subtransaction would need a multixact for that.
func TestHandleTxBatches(t *testing.T) {
	t.Parallel()
	c, pool, count := ledger(t, sqlq.Config{ReceiveConnections: 1})
	execSQL(t, pool, `CREATE TABLE handled (n int NOT NULL, x bigint NOT NULL)`)
	const messages = 300
	send(t, c, numbered(messages)...)

	// Who looks from before sees the rows go on, with the transactions that deleted them.
	before, err := pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		t.Fatal(err)
	}
	defer before.Rollback(context.Background())
	deleters := func(tx interface {
		Query(context.Context, string, ...any) (pgx.Rows, error)
	}, query string) []int64 {
		t.Helper()
		rows, err := tx.Query(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		xids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil {
			t.Fatal(err)
		}
		return xids
	}
	if xids := deleters(before, `SELECT DISTINCT xmax::text::bigint FROM sqlq.q_ledger`); !slices.Equal(xids, []int64{0}) {
		t.Fatalf("before they are received, rows have xmax %v", xids)
	}

	stop := run(t, c, sqlq.Endpoint{Name: "ledger", Concurrency: 1, Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
			_, err := tx.Exec(ctx, `INSERT INTO public.handled VALUES ($1, pg_current_xact_id()::text::bigint % (1::bigint << 32))`, d.Message.N)
			return err
		})}})
	eventually(t, "all settled", func() (bool, string) { return count(`SELECT count(*) FROM sqlq.q_ledger`) == 0, "rows left" })
	stop()

	if n := count(`SELECT count(DISTINCT n) FROM handled`); n != messages {
		t.Errorf("%d of %d messages were handled", n, messages)
	}
	if n := count(`SELECT count(DISTINCT x) FROM handled`); n > messages/2 {
		t.Errorf("%d messages took %d transactions", messages, n)
	}
	want := deleters(pool, `SELECT DISTINCT x FROM handled ORDER BY 1`)
	if got := deleters(before, `SELECT DISTINCT xmax::text::bigint FROM sqlq.q_ledger ORDER BY 1`); !slices.Equal(got, want) {
		t.Errorf("rows were deleted by %v, handled by %v", got, want)
	}
}
