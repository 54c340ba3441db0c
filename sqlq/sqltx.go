package sqlq

import (
	"context"
	"database/sql"

	"github.com/jackc/pgx/v5"
)

// SQLTx lets SendTx, PublishTx and SendBatchTx take part in a transaction of database/sql, of any driver for PostgreSQL: a *sql.Tx, or
// what a query layer puts around one, if it passes statements on as they are: a *sqlx.Tx, the DBTX of sqlc, the
// Statement.ConnPool of gorm. A bun.Tx does not, because bun has placeholders of its own: pass the *sql.Tx that it holds,
// tx.Tx. A *sql.DB is no transaction: SendTx refuses it.
func SQLTx(tx interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}) DBTX {
	_, autocommit := tx.(*sql.DB)
	return sqlTx{tx.QueryRowContext, autocommit}
}

type sqlTx struct {
	queryRow   func(ctx context.Context, query string, args ...any) *sql.Row
	autocommit bool // it is no transaction
}

func (tx sqlTx) QueryRow(ctx context.Context, query string, args ...any) pgx.Row {
	return tx.queryRow(ctx, query, args...)
}
