package sqlq

import (
	"context"
	"database/sql"

	"github.com/jackc/pgx/v5"
)

// SQLTx lets SendTx, PublishTx and SendBatchTx take part in a transaction of database/sql, with any PostgreSQL driver: a *sql.Tx,
// or the wrapper of a query layer, if it passes statements on unchanged: a *sqlx.Tx, the DBTX of sqlc, the
// Statement.ConnPool of gorm. A bun.Tx does not, because bun has its own placeholders: pass the *sql.Tx inside it,
// tx.Tx. A *sql.DB is not a transaction: SendTx refuses it.
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
