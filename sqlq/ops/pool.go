package ops

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// pool is the caller's, used so that it does not matter how its sessions are set: results come in the binary format, in which
// DateStyle, IntervalStyle, TimeZone, bytea_output and the like have no say, and nothing is prepared. An infinite time of the
// database is read as store.Infinity or store.NegativeInfinity, and written back as what it was: Go's times have none, and
// one row that has must not make a list fail.
type pool struct{ *pgxpool.Pool }

func (p pool) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return p.Pool.Exec(ctx, sql, parameters(args)...)
}

func (p pool) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	found, err := p.Pool.Query(ctx, sql, binary(args)...)
	return rows{found}, err
}

func (p pool) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return row{p.Pool.QueryRow(ctx, sql, binary(args)...)}
}

func (p pool) Begin(ctx context.Context) (pgx.Tx, error) { return p.BeginTx(ctx, pgx.TxOptions{}) }

func (p pool) BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error) {
	begun, err := p.Pool.BeginTx(ctx, options)
	if err != nil {
		return nil, err
	}
	return tx{begun}, nil
}

// tx is a transaction of a pool, used likewise. Only what a batch returns is left alone: that is numbers and names.
type tx struct{ pgx.Tx }

func (t tx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return t.Tx.Exec(ctx, sql, parameters(args)...)
}

func (t tx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	found, err := t.Tx.Query(ctx, sql, binary(args)...)
	return rows{found}, err
}

func (t tx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return row{t.Tx.QueryRow(ctx, sql, binary(args)...)}
}

// binary returns the arguments of a query whose results are to come in the binary format.
func binary(args []any) []any {
	options := []any{pgx.QueryExecModeExec, pgx.QueryResultFormats{pgx.BinaryFormatCode}}
	return append(options, parameters(args)...)
}

// parameters returns the arguments of a statement, with infinite times as the database has them.
func parameters(args []any) []any {
	sent := make([]any, len(args))
	for i, arg := range args {
		switch arg := arg.(type) {
		case time.Time:
			sent[i] = timestamp(arg)
		case *time.Time:
			if sent[i] = any(nil); arg != nil {
				sent[i] = timestamp(*arg)
			}
		case []time.Time:
			times := make([]pgtype.Timestamptz, len(arg))
			for j, at := range arg {
				times[j] = timestamp(at)
			}
			sent[i] = times
		default:
			sent[i] = arg
		}
	}
	return sent
}

func timestamp(at time.Time) pgtype.Timestamptz {
	switch {
	case at.Equal(store.Infinity):
		return pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}
	case at.Equal(store.NegativeInfinity):
		return pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true}
	}
	return pgtype.Timestamptz{Time: at, Valid: true}
}

// rows and row read infinite times.
type rows struct{ pgx.Rows }

func (r rows) Scan(to ...any) error { return r.Rows.Scan(readingInfinity(to)...) }

type row struct{ pgx.Row }

func (r row) Scan(to ...any) error { return r.Row.Scan(readingInfinity(to)...) }

func readingInfinity(to []any) []any {
	into := make([]any, len(to))
	for i, target := range to {
		switch target := target.(type) {
		case *time.Time:
			into[i] = scannedTime{value: target}
		case **time.Time:
			into[i] = scannedTime{pointer: target}
		default:
			into[i] = target
		}
	}
	return into
}

// scannedTime is where a time goes: into value, which takes no null, or into pointer.
type scannedTime struct {
	value   *time.Time
	pointer **time.Time
}

// ScanTimestamptz takes a time from a result.
func (s scannedTime) ScanTimestamptz(v pgtype.Timestamptz) error {
	at := v.Time
	switch {
	case !v.Valid && s.pointer == nil:
		return errors.New("there is no time, but null")
	case !v.Valid:
		*s.pointer = nil
		return nil
	case v.InfinityModifier == pgtype.Infinity:
		at = store.Infinity
	case v.InfinityModifier == pgtype.NegativeInfinity:
		at = store.NegativeInfinity
	}
	if s.pointer != nil {
		*s.pointer = &at
	} else {
		*s.value = at
	}
	return nil
}
