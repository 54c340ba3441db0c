package ops

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// pool is the caller's, used so that it does not matter how its sessions are set: results come in the binary format, in which
// DateStyle, IntervalStyle, TimeZone, bytea_output and the like have no say, and nothing is prepared, so that poolers do not
// matter either. The driver has a mode for each of that, not for both. An infinite time of the database is read as
// store.Infinity or store.NegativeInfinity, and written back as what it was: Go's times have none, and one row that has must
// not make a list fail.
type pool struct {
	*pgxpool.Pool
	tracer pgx.QueryTracer // the caller's; nil: none
}

func newPool(p *pgxpool.Pool) pool {
	if p == nil { // of an Ops that asks no database
		return pool{}
	}
	return pool{p, p.Config().ConnConfig.Tracer}
}

func (p pool) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return p.Pool.Exec(ctx, sql, parameters(args)...)
}

func (p pool) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	conn, err := p.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	return runQuery(ctx, conn.Conn(), p.tracer, conn.Release, sql, args)
}

func (p pool) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return oneRow(p.Query(ctx, sql, args...))
}

func (p pool) Begin(ctx context.Context) (pgx.Tx, error) { return p.BeginTx(ctx, pgx.TxOptions{}) }

func (p pool) BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error) {
	begun, err := p.Pool.BeginTx(ctx, options)
	if err != nil {
		return nil, err
	}
	return tx{begun, p.tracer}, nil
}

// tx is a transaction of a pool, used likewise. Only what a batch returns is left alone: that is numbers and names.
type tx struct {
	pgx.Tx
	tracer pgx.QueryTracer
}

func (t tx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return t.Tx.Exec(ctx, sql, parameters(args)...)
}

func (t tx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return runQuery(ctx, t.Conn(), t.tracer, func() {}, sql, args)
}

func (t tx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return oneRow(t.Query(ctx, sql, args...))
}

// runQuery runs a statement whose results come in the binary format, in one round trip. then is called when its rows are closed.
func runQuery(ctx context.Context, conn *pgx.Conn, tracer pgx.QueryTracer, then func(), sql string, args []any) (pgx.Rows, error) {
	args = slices.DeleteFunc(args, func(arg any) bool { _, is := arg.(pgx.QueryExecMode); return is }) // it is this one
	if tracer != nil {
		ctx = tracer.TraceQueryStart(ctx, conn, pgx.TraceQueryStartData{SQL: sql, Args: args})
	}
	r := &rows{conn: conn, then: func(tag pgconn.CommandTag, err error) {
		if tracer != nil {
			tracer.TraceQueryEnd(ctx, conn, pgx.TraceQueryEndData{CommandTag: tag, Err: err})
		}
		then()
	}}
	var built pgx.ExtendedQueryBuilder
	if err := built.Build(conn.TypeMap(), nil, parameters(args)); err != nil {
		r.then(pgconn.CommandTag{}, err)
		return nil, err
	}
	r.Rows = pgx.RowsFromResultReader(conn.TypeMap(),
		conn.PgConn().ExecParams(ctx, sql, built.ParamValues, nil, built.ParamFormats, []int16{pgx.BinaryFormatCode}))
	return r, nil
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
	case at.Equal(query.Infinity):
		return pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}
	case at.Equal(query.NegativeInfinity):
		return pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true}
	}
	return pgtype.Timestamptz{Time: at, Valid: true}
}

// rows are the result of a query, in which times may be infinite.
type rows struct {
	pgx.Rows
	conn   *pgx.Conn
	closed bool
	then   func(tag pgconn.CommandTag, err error)
}

// Next closes the rows behind the last one, as the driver's do.
func (r *rows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	r.Close()
	return false
}

// Close ends the query; it may be called again.
func (r *rows) Close() {
	r.Rows.Close()
	if !r.closed {
		r.closed = true
		r.then(r.CommandTag(), r.Err())
	}
}

// Conn is the connection on which the query runs.
func (r *rows) Conn() *pgx.Conn { return r.conn }

// Scan reads a row; where that fails it closes the rows, as the driver's do.
func (r *rows) Scan(to ...any) error {
	err := r.Rows.Scan(readingInfinity(to)...)
	if err != nil {
		r.Close()
	}
	return err
}

// row is the first of a query's rows.
type row struct {
	rows pgx.Rows
	err  error
}

func oneRow(found pgx.Rows, err error) pgx.Row { return row{found, err} }

// Scan reads the row, and ends the query; pgx.ErrNoRows: there is none.
func (r row) Scan(to ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		return cmp.Or(r.rows.Err(), pgx.ErrNoRows)
	}
	if err := r.rows.Scan(to...); err != nil {
		return err
	}
	r.rows.Close()
	return r.rows.Err()
}

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
		at = query.Infinity
	case v.InfinityModifier == pgtype.NegativeInfinity:
		at = query.NegativeInfinity
	}
	if s.pointer != nil {
		*s.pointer = &at
	} else {
		*s.value = at
	}
	return nil
}
