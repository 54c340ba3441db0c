package sqlq

import (
	"context"
	"database/sql"

	"github.com/jackc/pgx/v5"
)

// SQLTx lets SendTx and PublishTx take part in a transaction of database/sql, of any driver for PostgreSQL.
func SQLTx(tx *sql.Tx) DBTX { return sqlTx{tx} }

type sqlTx struct{ tx *sql.Tx }

func (t sqlTx) QueryRow(ctx context.Context, query string, args ...any) pgx.Row {
	return t.tx.QueryRowContext(ctx, query, args...)
}
