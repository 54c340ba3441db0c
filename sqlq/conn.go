package sqlq

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/session"
)

// conn is a receive connection, and what is known of its session and of handlers' SQL on it.
type conn struct {
	*session.Conn

	state string // the state of the session as the last transaction left it, as the SQL expression seen found it
	seen  string

	statements map[string]*statement // what is known of handlers' SQL
	late       bool                  // pgx encodes the arguments of a batch when it has sent a part of it
	encoder    pgx.ExtendedQueryBuilder
}

// connect makes a receive connection.
func (c *Client) connect(ctx context.Context) (*conn, error) {
	own, err := c.connector.Connect(ctx, session.Receive)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: own, late: encodesLate(own.Config().DefaultQueryExecMode)}, nil
}

// encodesLate reports whether, with a query mode, pgx encodes the arguments of a batch when it has sent a part of it.
func encodesLate(mode pgx.QueryExecMode) bool {
	return mode != pgx.QueryExecModeExec && mode != pgx.QueryExecModeSimpleProtocol
}
