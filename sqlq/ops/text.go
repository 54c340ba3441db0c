package ops

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// PinText has the connections of a pool that is yet to be made send text in the form that pgx reads, whatever the settings of
// the server, database and role are: datestyle, intervalstyle, bytea_output and the like. Use it for a pool in one of pgx's modes
// that read text (exec, simple_protocol). The session's settings are changed, but those of the order of
// day and month and of the time zone are not; behind a transaction pooler only what every pooler passes on. It goes in front of
// an AfterConnect that is set already.
func PinText(config *pgxpool.Config) {
	first := map[string]string{"client_encoding": "UTF8", "datestyle": "ISO"}
	maps.DeleteFunc(config.ConnConfig.RuntimeParams, func(name, _ string) bool {
		_, is := first[strings.ToLower(name)]
		return is
	})
	maps.Copy(config.ConnConfig.RuntimeParams, first)
	then := config.AfterConnect
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		pid, err := store.BackendPID(ctx, conn.PgConn())
		if err == nil && pid == conn.PgConn().PID() {
			err = store.SetSession(ctx, conn, []string{"datestyle", "intervalstyle", "bytea_output", "extra_float_digits", "standard_conforming_strings"},
				[]string{"ISO", "postgres", "hex", "1", "on"})
		}
		if err != nil {
			return fmt.Errorf("set up the connection: %w", err)
		}
		if then == nil {
			return nil
		}
		return then(ctx, conn)
	}
}
