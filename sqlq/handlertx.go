package sqlq

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sqlq/sqlq/sqlq/internal/session"
)

// handlerTx is the transaction that one call of a HandleTx handler is given, and one that it begins within: a savepoint. It refuses
// to end the receive transaction. When the handler has returned nothing can be done with it.
type handlerTx struct {
	*receiveTx
	outer *handlerTx // nil: it is what the handler was given
	name  string     // of the savepoint
	done  bool       // guarded by mu
}

// enter gives the handler the connection; leave takes it back and learns from the error.
func (tx *handlerTx) enter() error {
	tx.mu.Lock()
	err := tx.over()
	if err != nil {
		tx.mu.Unlock()
	}
	return err
}

func (tx *handlerTx) over() error {
	at := tx
	for ; at.outer != nil; at = at.outer {
		if at.done {
			return pgx.ErrTxClosed
		}
	}
	switch {
	case at != tx.handed:
		return fmt.Errorf("%w: the handler has returned", pgx.ErrTxClosed)
	case tx.copying:
		return errCopying
	}
	return nil
}

func (tx *handlerTx) leave(err error) {
	tx.learn(err)
	tx.mu.Unlock()
}

// errCopying is what the source of a CopyFrom gets for using the transaction.
var errCopying = errors.New("conn busy: a CopyFrom of this transaction is under way")

// errApart is what a handler gets for a statement that needs a transaction without other messages. It runs again, in one.
var errApart = errors.New("the statement changes the session, so the message needs a transaction of its own; its handler runs again in one, and no attempt is counted")

// allow says whether a statement may run, and notes what it changes.
func (tx *handlerTx) allow(sql string, args []any) error {
	s := tx.conn.statement(sql)
	if s.refused != nil {
		return s.refused
	}
	tx.savepoints += s.savepoints
	if !s.touches {
		return nil
	}
	return tx.touch(s, args)
}

func (tx *receiveTx) touch(s *statement, args []any) error {
	tx.touched = true
	tx.replace = tx.replace || s.replaces
	names := s.settings
	for _, n := range s.named {
		if n <= len(args) {
			if name, ok := args[n-1].(string); ok {
				names = append(names[:len(names):len(names)], name)
			}
		}
	}
	if len(names) > 0 {
		tx.in.client.settings.learn(names)
	}
	if tx.workers > 0 {
		return errApart
	}
	return nil
}

// rewrite does what pgx does first with arguments like pgx.NamedArgs, so that what is looked at is what is sent.
func (tx *handlerTx) rewrite(ctx context.Context, sql string, args []any) (string, []any, error) {
	for i, arg := range args {
		rewriter, ok := arg.(pgx.QueryRewriter)
		if !ok {
			if hasOptions(args[i:]) {
				continue
			}
			break
		}
		options := args[:i:i]
		sql, args, err := rewriter.RewriteQuery(ctx, tx.conn.Conn.Conn, sql, args[i+1:])
		if err != nil {
			return "", nil, fmt.Errorf("rewrite query failed: %w", err)
		}
		return sql, append(options, args...), nil
	}
	return sql, args, nil
}

// Exec implements pgx.Tx.
func (tx *handlerTx) Exec(ctx context.Context, sql string, args ...any) (tag pgconn.CommandTag, err error) {
	if err := tx.enter(); err != nil {
		return tag, err
	}
	defer func() { tx.leave(err) }()
	sql, args, err = tx.rewrite(ctx, sql, args)
	if err != nil {
		return tag, err
	}
	if err = tx.allow(sql, args); err != nil {
		return tag, err
	}
	return tx.exec(ctx, sql, args)
}

// Query implements pgx.Tx.
func (tx *handlerTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := tx.enter(); err != nil {
		return nil, err
	}
	sql, args, err := tx.rewrite(ctx, sql, args)
	if err == nil {
		err = tx.allow(sql, args)
	}
	var rows pgx.Rows
	if err == nil {
		rows, err = tx.query(ctx, sql, args)
	}
	tx.leave(err)
	return rows, err
}

// QueryRow implements pgx.Tx.
func (tx *handlerTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, err := tx.Query(ctx, sql, args...)
	return &guardedRow{rows: rows, err: err}
}

// SendBatch implements pgx.Tx.
func (tx *handlerTx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if err := tx.enter(); err != nil {
		return refusedBatch{err}
	}
	results, err := tx.send(ctx, b)
	tx.leave(err)
	if err != nil {
		return refusedBatch{err}
	}
	return results
}

func (tx *handlerTx) send(ctx context.Context, b *pgx.Batch) (*guardedBatch, error) {
	var errs error
	for _, q := range b.QueuedQueries {
		sql, args, err := tx.rewrite(ctx, q.SQL, q.Arguments)
		if err != nil {
			return nil, err
		}
		q.SQL, q.Arguments = sql, args
		errs = errors.Join(errs, tx.allow(sql, args))
	}
	if errs != nil {
		return nil, errs
	}
	if err := tx.mustFront(ctx); err != nil {
		return nil, err
	}
	if err := tx.canSend(ctx, b.QueuedQueries); err != nil {
		return nil, err
	}
	results := &guardedBatch{BatchResults: tx.conn.SendBatch(ctx, b), tx: tx, queries: b.QueuedQueries}
	tx.batches = append(tx.batches, results)
	return results, nil
}

// CopyFrom implements pgx.Tx. The source may not use the transaction.
func (tx *handlerTx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, source pgx.CopyFromSource) (n int64, err error) {
	if err := tx.enter(); err != nil {
		return 0, err
	}
	defer func() { tx.leave(err) }()
	if err = tx.mustFront(ctx); err != nil {
		return 0, err
	}
	tx.copying = true
	tx.mu.Unlock()
	defer func() {
		tx.mu.Lock()
		tx.copying = false
	}()
	return tx.conn.CopyFrom(ctx, table, columns, source)
}

// Prepare implements pgx.Tx. The statement is there until the handler returns.
func (tx *handlerTx) Prepare(ctx context.Context, name, sql string) (d *pgconn.StatementDescription, err error) {
	if err := tx.enter(); err != nil {
		return nil, err
	}
	defer func() { tx.leave(err) }()
	if err = tx.allow(sql, nil); err != nil {
		return nil, err
	}
	if err = tx.mustFront(ctx); err != nil {
		return nil, err
	}
	if d, err = tx.conn.Prepare(ctx, name, sql); err == nil && name != "" {
		tx.prepared = append(tx.prepared, name)
	}
	return d, err
}

// LargeObjects implements pgx.Tx.
func (tx *handlerTx) LargeObjects() pgx.LargeObjects {
	panic("sqlq: large objects are not available in a HandleTx handler: pgx ties them to its own transaction type; call the lo_ functions by SQL")
}

// Conn implements pgx.Tx. What is done with the connection is undone with a failing handler like everything else. The message
// has a transaction of its own, and the connection is closed behind it, because nothing else takes it away from a handler:
// it costs a new connection for each message.
func (tx *handlerTx) Conn() *pgx.Conn {
	if tx.enter() != nil {
		return session.Closed()
	}
	defer tx.mu.Unlock()
	ctx, cancel := context.WithTimeout(tx.base, 30*time.Second)
	defer cancel()
	tx.learn(tx.mustFront(ctx))
	tx.touched, tx.borrowed, tx.replace = true, true, true
	return tx.conn.Conn.Conn
}

// Begin implements pgx.Tx: a savepoint within the handler's work.
func (tx *handlerTx) Begin(ctx context.Context) (pgx.Tx, error) {
	if err := tx.enter(); err != nil {
		return nil, err
	}
	tx.nested++
	tx.savepoints++
	nested := &handlerTx{receiveTx: tx.receiveTx, outer: tx, name: fmt.Sprintf("sqlq_nested_%d", tx.nested)}
	_, err := tx.exec(ctx, `SAVEPOINT `+nested.name, nil)
	tx.leave(err)
	if err != nil {
		return nil, err
	}
	return nested, nil
}

// Commit implements pgx.Tx. What the handler was given refuses: sqlq commits, with the removal of the message.
func (tx *handlerTx) Commit(ctx context.Context) error {
	if tx.outer == nil {
		return fmt.Errorf("%w: return nil instead of calling Commit", ErrTransactionOwned)
	}
	return tx.end(ctx, `RELEASE SAVEPOINT `, false)
}

// Rollback implements pgx.Tx. What the handler was given refuses: an error that the handler returns undoes its work.
func (tx *handlerTx) Rollback(ctx context.Context) error {
	if tx.outer == nil {
		return fmt.Errorf("%w: return an error instead of calling Rollback", ErrTransactionOwned)
	}
	return tx.end(ctx, `ROLLBACK TO SAVEPOINT `, true)
}

func (tx *handlerTx) end(ctx context.Context, how string, undoes bool) (err error) {
	if err := tx.enter(); err != nil {
		return err
	}
	defer func() { tx.leave(err) }()
	tx.done = true
	if _, err = tx.exec(ctx, how+tx.name, nil); err == nil && undoes {
		tx.failure, tx.waited = nil, false // undone on purpose
	}
	return err
}

// hasOptions says whether the arguments begin with one of pgx's query options, which a batch does not take.
func hasOptions(args []any) bool {
	if len(args) == 0 {
		return false
	}
	switch args[0].(type) {
	case pgx.QueryExecMode, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID:
		return true
	}
	return false
}

var _ pgx.Tx = (*handlerTx)(nil)
