package sqlq

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Begin implements pgx.Tx: a savepoint within the handler's work.
func (tx *receiveTx) Begin(ctx context.Context) (pgx.Tx, error) {
	nested := &nestedTx{receiveTx: tx, depth: 1}
	if _, err := tx.Exec(ctx, nested.sql(`SAVEPOINT %s`)); err != nil {
		return nil, err
	}
	return nested, nil
}

// nestedTx is a savepoint that a handler began.
type nestedTx struct {
	*receiveTx
	depth int
	done  bool
}

func (n *nestedTx) sql(format string) string {
	return fmt.Sprintf(format, fmt.Sprintf("sqlq_nested_%d", n.depth))
}

func (n *nestedTx) Begin(ctx context.Context) (pgx.Tx, error) {
	inner := &nestedTx{receiveTx: n.receiveTx, depth: n.depth + 1}
	if _, err := n.receiveTx.Exec(ctx, inner.sql(`SAVEPOINT %s`)); err != nil {
		return nil, err
	}
	return inner, nil
}

func (n *nestedTx) Commit(ctx context.Context) error {
	if n.done {
		return pgx.ErrTxClosed
	}
	n.done = true
	_, err := n.receiveTx.Exec(ctx, n.sql(`RELEASE SAVEPOINT %s`))
	return err
}

func (n *nestedTx) Rollback(ctx context.Context) error {
	if n.done {
		return pgx.ErrTxClosed
	}
	n.done = true
	_, err := n.receiveTx.Exec(ctx, n.sql(`ROLLBACK TO SAVEPOINT %s`))
	if err == nil {
		n.receiveTx.mu.Lock()
		n.receiveTx.failure, n.receiveTx.waited = nil, false // undone on purpose
		n.receiveTx.mu.Unlock()
	}
	return err
}
