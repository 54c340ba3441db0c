package sqlq

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/sqlq/sqlq/sqlq/internal/session"
)

// front queues what goes before a handler's first statement, in the same round trip: the savepoint, and with the first
// handler of a batch the planner's settings and a look at the session, with the second the limit on waiting for locks. The batch is used
// again by the next handler: nothing refers to it once its results are closed.
func (tx *receiveTx) front() *pgx.Batch {
	b := &tx.riding
	b.QueuedQueries = b.QueuedQueries[:0]
	if tx.begun {
		return b
	}
	if tx.savepoint {
		tx.release.SQL = `RELEASE SAVEPOINT sqlq`
		b.QueuedQueries = append(b.QueuedQueries, &tx.release)
	}
	if !tx.plans {
		tx.queuePlans(b)
	}
	if tx.later && !tx.limited {
		b.Queue(`SET LOCAL lock_timeout = 1`) // milliseconds
	}
	tx.save.SQL = `SAVEPOINT sqlq`
	b.QueuedQueries = append(b.QueuedQueries, &tx.save)
	return b
}

// queuePlans gives the handlers the planner as the server has it, and looks at the session, if that is not known to be as the
// last transaction left it.
func (tx *receiveTx) queuePlans(b *pgx.Batch) {
	own := tx.conn.OwnPlans
	known := tx.conn.seen == tx.watched.state[tx.look] && !tx.alone
	tx.conn.seen = "" // until this transaction has ended well
	if known {
		tx.before = tx.conn.state
		b.Queue(session.SetPlans, own[0], own[1], own[2], own[3])
		return
	}
	b.Queue(tx.watched.front[tx.look], own[0], own[1], own[2], own[3]).QueryRow(func(row pgx.Row) error {
		return row.Scan(nil, nil, nil, nil, &tx.before)
	})
}

// fronted notes that what front queued has been executed.
func (tx *receiveTx) fronted() {
	tx.begun, tx.savepoint, tx.plans = true, true, true
	tx.limited = tx.limited || tx.later
	tx.savepoints++
}

// mustFront runs what front queues by itself, for statements that cannot ride with it.
func (tx *receiveTx) mustFront(ctx context.Context) error {
	if tx.begun {
		return nil
	}
	err := tx.conn.SendBatch(ctx, tx.front()).Close()
	if err == nil {
		tx.fronted()
	}
	return err
}

// ride sends a handler's first statement behind what front queues, in one round trip. The statement's result comes next.
func (tx *receiveTx) ride(ctx context.Context, sql string, args []any) (pgx.BatchResults, error) {
	b := tx.front()
	front := b.QueuedQueries
	b.Queue(sql, args...)
	results := tx.conn.SendBatch(ctx, b)
	for _, q := range front {
		var err error
		if q.Fn != nil {
			err = q.Fn(results)
		} else {
			_, err = results.Exec()
		}
		if err != nil {
			results.Close()
			return nil, session.ServerSaid(err)
		}
	}
	tx.fronted()
	return results, nil
}

// canRide says whether a statement may go with what front queues. What pgx refuses to encode must not: it would have sent what
// goes before, and closes the connection then. So the server is asked once for the statement's parameters, and arguments
// are tried on them; whatever fails goes the usual way, and fails there.
func (tx *receiveTx) canRide(ctx context.Context, sql string, args []any) (bool, error) {
	if tx.begun || hasOptions(args) {
		return false, tx.mustFront(ctx)
	}
	s := tx.conn.statement(sql)
	if s.several {
		return false, tx.mustFront(ctx)
	}
	if !tx.conn.late {
		return true, nil
	}
	if s.params == nil {
		if err := tx.mustFront(ctx); err != nil {
			return false, err
		}
		return false, tx.describe(ctx, []*pgx.QueuedQuery{{SQL: sql}})
	}
	if tx.try(s, args) != nil {
		s.params = nil // it may be another statement by now, of a table that was changed
		return false, tx.mustFront(ctx)
	}
	return true, nil
}

// canSend says why the arguments of a batch cannot be sent, if so: see canRide.
func (tx *receiveTx) canSend(ctx context.Context, queries []*pgx.QueuedQuery) error {
	if !tx.conn.late {
		return nil
	}
	if err := tx.describe(ctx, queries); err != nil {
		return err
	}
	for _, q := range queries {
		s := tx.conn.statement(q.SQL)
		if s.params == nil {
			continue // it was prepared by its name, or is too long to be remembered
		}
		if err := tx.try(s, q.Arguments); err != nil {
			s.params = nil
			return err
		}
	}
	return nil
}

// try says whether pgx encodes arguments for a statement. The common ones need not be encoded twice for that.
func (tx *receiveTx) try(s *statement, args []any) error {
	plain := len(args) == len(s.params.ParamOIDs)
	for i := 0; plain && i < len(args); i++ {
		plain = encodes(s.params.ParamOIDs[i], args[i])
	}
	if plain {
		return nil
	}
	return tx.conn.encoder.Build(tx.conn.TypeMap(), s.params, args)
}

// encodes says whether an argument certainly can be encoded as a type.
func encodes(oid uint32, arg any) bool {
	switch arg := arg.(type) {
	case string:
		return oid == pgtype.TextOID || oid == pgtype.VarcharOID
	case []byte:
		return oid == pgtype.ByteaOID
	case bool:
		return oid == pgtype.BoolOID
	case int:
		return oid == pgtype.Int8OID || oid == pgtype.Int4OID && arg == int(int32(arg))
	case int32:
		return oid == pgtype.Int8OID || oid == pgtype.Int4OID
	case int64:
		return oid == pgtype.Int8OID || oid == pgtype.Int4OID && arg == int64(int32(arg))
	case time.Time:
		return oid == pgtype.TimestamptzOID
	case []int64, []int:
		return oid == pgtype.Int8ArrayOID
	case []int32:
		return oid == pgtype.Int4ArrayOID
	case []string:
		return oid == pgtype.TextArrayOID
	}
	return false
}

// describe asks the server for the parameters of the statements that are not known yet, in a round trip.
func (tx *receiveTx) describe(ctx context.Context, queries []*pgx.QueuedQuery) error {
	var unknown []*statement
	var texts []string
	for _, q := range queries {
		if s := tx.conn.statement(q.SQL); s.params == nil && !slices.Contains(tx.prepared, q.SQL) {
			unknown, texts = append(unknown, s), append(texts, q.SQL)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	pipeline := tx.conn.PgConn().StartPipeline(ctx)
	for _, sql := range texts {
		pipeline.SendPrepare("", sql, nil)
	}
	if err := pipeline.Sync(); err != nil {
		return errors.Join(err, pipeline.Close())
	}
	for _, s := range unknown {
		results, err := pipeline.GetResults()
		if err != nil {
			_ = pipeline.Close()
			return err
		}
		if described, ok := results.(*pgconn.StatementDescription); ok {
			s.params = described
		}
	}
	return pipeline.Close()
}

// exec runs a statement of the handler's.
func (tx *receiveTx) exec(ctx context.Context, sql string, args []any) (tag pgconn.CommandTag, err error) {
	rides, err := tx.canRide(ctx, sql, args)
	if err != nil {
		return tag, err
	}
	if !rides {
		return tx.conn.Exec(ctx, sql, args...)
	}
	results, err := tx.ride(ctx, sql, args)
	if err != nil {
		return tag, err
	}
	tag, err = results.Exec()
	return tag, errors.Join(err, ignoreSame(results.Close(), err))
}

// query is exec for a statement that returns rows.
func (tx *handlerTx) query(ctx context.Context, sql string, args []any) (pgx.Rows, error) {
	rides, err := tx.canRide(ctx, sql, args)
	if err != nil {
		return nil, err
	}
	guarded := &guardedRows{tx: tx}
	if !rides {
		if guarded.Rows, err = tx.conn.Query(ctx, sql, args...); err != nil {
			return nil, err
		}
	} else {
		results, err := tx.ride(ctx, sql, args)
		if err != nil {
			return nil, err
		}
		rows, err := results.Query()
		if err != nil {
			results.Close()
			return nil, err
		}
		guarded.Rows, guarded.results = rows, results
	}
	tx.rows = append(tx.rows, guarded)
	return guarded, nil
}

// ignoreSame leaves out an error that only repeats another.
func ignoreSame(err, other error) error {
	if other != nil {
		return nil
	}
	return err
}
