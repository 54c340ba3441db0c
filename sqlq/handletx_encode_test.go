package sqlq_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// What pgx refuses to send fails the message that asked for it, after one attempt, with pgx's own error; the connection and
// the neighbours' work stay.
func TestHandleTxArgumentsThatCannotBeSent(t *testing.T) {
	t.Parallel()
	const insert = `INSERT INTO public.ledger VALUES ($1)`
	const two = `INSERT INTO public.ledger SELECT $1::int WHERE $2::int > 0`
	batch := func(args ...any) func(context.Context, pgx.Tx) error {
		return func(ctx context.Context, tx pgx.Tx) error {
			b := &pgx.Batch{}
			b.Queue(`INSERT INTO public.ledger VALUES ($1)`, 1000)
			b.Queue(insert, args...)
			return tx.SendBatch(ctx, b).Close()
		}
	}
	ways := map[string]struct {
		way  func(ctx context.Context, tx pgx.Tx) error
		says string
	}{
		"too large": {func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, insert, int64(1)<<40)
			return err
		}, "greater than maximum value|out of range"},
		"one too few": {func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, two, 1)
			return err
		}, "mismatched param and argument count|expected 2 arguments, got 1|requires 2|insufficient arguments"},
		"none": {func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, insert)
			return err
		}, "mismatched param and argument count|expected 1 arguments, got 0|there is no parameter|requires 1|insufficient arguments"},
		"a channel": {func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, insert, make(chan int))
			return err
		}, "chan int"},
		"named": {func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO public.ledger VALUES (@n)`, pgx.NamedArgs{"n": int64(1) << 40})
			return err
		}, "greater than maximum value|out of range"},
		"a name without a value": {func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO public.ledger VALUES (@n)`, pgx.StrictNamedArgs{})
			return err
		}, "rewrite query failed"},
		"Query": {func(ctx context.Context, tx pgx.Tx) error {
			rows, err := tx.Query(ctx, insert+` RETURNING n`, int64(1)<<40)
			if err != nil {
				return err
			}
			rows.Close()
			return rows.Err()
		}, "greater than maximum value|out of range"},
		"QueryRow": {func(ctx context.Context, tx pgx.Tx) error {
			return tx.QueryRow(ctx, insert+` RETURNING n`, int64(1)<<40).Scan(new(int))
		}, "greater than maximum value|out of range"},
		"SendBatch":            {batch(int64(1) << 40), "greater than maximum value|out of range"},
		"SendBatch, a channel": {batch(make(chan int)), "chan int"},
		"CopyFrom": {func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.CopyFrom(ctx, pgx.Identifier{"public", "ledger"}, []string{"n"}, pgx.CopyFromRows([][]any{{1000}, {int64(1) << 40}}))
			return err
		}, "greater than maximum value|out of range"},
	}
	for _, mode := range []string{"cache_statement", "cache_describe", "exec", "simple_protocol"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			url := pgtest.Database(t)
			pool := poolOn(t, url)
			execSQL(t, pool, `CREATE TABLE ledger (n int NOT NULL)`)
			execSQL(t, pool, `SELECT sqlq.create_queue('ledger')`)
			for name, tc := range ways {
				for _, second := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s, as second statement %t", name, second), func(t *testing.T) {
						refusedArgument(t, url, pool, mode, second, tc.way, tc.says)
					})
				}
			}
		})
	}
}

// refusedArgument tries one way on a database that others have used before.
func refusedArgument(t *testing.T, url string, pool *pgxpool.Pool, mode string, second bool, way func(ctx context.Context, tx pgx.Tx) error, says string) {
	t.Helper()
	execSQL(t, pool, `TRUNCATE ledger`)
	execSQL(t, pool, `DELETE FROM sqlq.error`)
	config, err := pgxpool.ParseConfig(url + modeOption(url, mode))
	if err != nil {
		t.Fatal(err)
	}
	in, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.Close)
	c := open(t, in, sqlq.Config{ReceiveConnections: 1, Routes: map[string]string{"ledger.Entry": "ledger"}})
	entries := numbered(12)
	entries[0].Fail, entries[7].Fail, entries[8].Fail = "yes", "yes", "yes"
	send(t, c, entries...)
	var calls, neighbours atomic.Int32
	stop := run(t, c, sqlq.Endpoint{Name: "ledger", Retry: noRetry, Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
			if d.Message.Fail == "" {
				neighbours.Add(1)
				_, err := tx.Exec(ctx, `INSERT INTO public.ledger VALUES ($1)`, d.Message.N)
				return err
			}
			calls.Add(1)
			if second {
				if _, err := tx.Exec(ctx, `INSERT INTO public.ledger VALUES ($1)`, 2000); err != nil {
					return err
				}
			}
			err := way(ctx, tx)
			if err == nil {
				t.Error("it was sent")
			}
			return err
		})}})
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_ledger`)
	stop()
	var said string
	if err := pool.QueryRow(t.Context(), `SELECT coalesce(min(message), '') FROM sqlq.error WHERE attempts = 1`).Scan(&said); err != nil {
		t.Fatal(err)
	}
	named := false
	for _, text := range strings.Split(says, "|") {
		named = named || strings.Contains(said, text)
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.error WHERE attempts = 1`); n != 3 || !named {
		t.Errorf("%d messages failed after one attempt, with %q; want 3, with %q", n, said, says)
	}
	if rows := count(t, pool, `SELECT count(*) FROM ledger`); rows != 9 || count(t, pool, `SELECT count(DISTINCT n) FROM ledger WHERE n < 1000`) != 9 {
		t.Errorf("%d rows, want those of the 9 neighbours", rows)
	}
	if calls.Load() > 5 || neighbours.Load() != 9 {
		t.Errorf("the handler ran %d times for 3 messages, %d times for their 9 neighbours", calls.Load(), neighbours.Load())
	}
}

func modeOption(url, mode string) string {
	sep := "?"
	if strings.Contains(url, "?") {
		sep = "&"
	}
	return sep + "default_query_exec_mode=" + mode
}
