package devpg

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// CreateDatabase creates a database as a copy of another one, the template, which must have no connections. It waits for
// sessions that are just ending until ctx ends.
func (s *Server) CreateDatabase(ctx context.Context, name, template string) error {
	strategy := ""
	if s.cheapCheckpoints && s.Major() >= 15 {
		// The default from 15 on, WAL_LOG, writes each page into the log as well, for twice the processor time. What it saves is two
		// checkpoints, which cost next to nothing where they wait for no disk.
		strategy = " STRATEGY file_copy"
	}
	return s.onceUnused(ctx, fmt.Sprintf(`CREATE DATABASE %s TEMPLATE %s%s`, pgx.Identifier{name}.Sanitize(), pgx.Identifier{template}.Sanitize(), strategy))
}

// MakeTemplate renames a database and refuses further connections to it: a template with connections cannot be copied. It waits
// for sessions that are just ending until ctx ends.
func (s *Server) MakeTemplate(ctx context.Context, database, name string) error {
	err := s.Admin(ctx, fmt.Sprintf(`ALTER DATABASE %s ALLOW_CONNECTIONS false`, pgx.Identifier{database}.Sanitize()))
	if err != nil {
		return err
	}
	return s.onceUnused(ctx, fmt.Sprintf(`ALTER DATABASE %s RENAME TO %s`, pgx.Identifier{database}.Sanitize(), pgx.Identifier{name}.Sanitize()))
}

// onceUnused runs a statement that needs a database without any connection, neither a session nor autovacuum.
func (s *Server) onceUnused(ctx context.Context, statement string) error {
	err := s.Admin(ctx, statement)
	for sqlState(err) == objectInUse && ctx.Err() == nil {
		err = s.Admin(ctx, statement)
	}
	return err
}

// DropDatabase drops a database with its sessions and prepared transactions. If it does not exist, that is not an error.
func (s *Server) DropDatabase(ctx context.Context, name string) error {
	statement := fmt.Sprintf(`DROP DATABASE %s WITH (FORCE)`, pgx.Identifier{name}.Sanitize())
	err := s.Admin(ctx, statement)
	if sqlState(err) == objectInUse { // FORCE does not include prepared transactions
		if err := s.rollbackPrepared(ctx, name); err != nil {
			return fmt.Errorf("roll back the prepared transactions in %s: %w", name, err)
		}
		err = s.Admin(ctx, statement)
	}
	if sqlState(err) == invalidCatalogName {
		return nil
	}
	return err
}

// Admin runs a statement in the server's own database, on a separate connection: so there is no pool that keeps connections,
// or that breaks when a test kills every session it can. Its error names the statement.
func (s *Server) Admin(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, s.URL(""))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

func (s *Server) rollbackPrepared(ctx context.Context, name string) error {
	conn, err := pgx.Connect(ctx, s.URL(name))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `SELECT quote_literal(gid) FROM pg_prepared_xacts WHERE database = current_database()`)
	if err != nil {
		return err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, id := range ids {
		if _, err := conn.Exec(ctx, `ROLLBACK PREPARED `+id); err != nil {
			return err
		}
	}
	return nil
}

// SQLSTATEs that are handled here.
const (
	objectInUse        = "55006"
	invalidCatalogName = "3D000"
)

func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}
