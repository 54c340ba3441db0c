package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// Sending works in every mode of pgx without a pooler too.
func TestSendInEveryExecMode(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	for _, mode := range append([]string{"describe_exec"}, bouncerModes...) {
		t.Run(mode, func(t *testing.T) {
			config, err := pgxpool.ParseConfig(url)
			if err != nil {
				t.Fatal(err)
			}
			config.ConnConfig.DefaultQueryExecMode = map[string]pgx.QueryExecMode{"cache_statement": pgx.QueryExecModeCacheStatement, "exec": pgx.QueryExecModeExec, "simple_protocol": pgx.QueryExecModeSimpleProtocol,
				"cache_describe": pgx.QueryExecModeCacheDescribe, "describe_exec": pgx.QueryExecModeDescribeExec}[mode]
			pool, err := pgxpool.NewWithConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			c := open(t, pool, sqlq.Config{Routes: map[string]string{"pooled.Plain": mode}})
			execSQL(t, pool, `SELECT sqlq.create_queue($1)`, mode)
			if err := c.SendMany(t.Context(), []sqlq.Message{pooledPlain{1}, pooledPlain{2}}, sqlq.ExpiresIn(time.Minute)); err != nil {
				t.Error(err)
			}
			if err := c.SendMany(t.Context(), []sqlq.Message{pooledPlain{1}, pooledPlain{2}}, sqlq.Delay(time.Minute)); err != nil {
				t.Error(err)
			}
			if n := count(t, pool, fmt.Sprintf(`SELECT count(*) FROM sqlq."q_%s"`, mode)); n != 2 {
				t.Errorf("%d messages, want 2", n)
			}
		})
	}
}

// Config.ListenURL must lead to the database of the pool.
func TestListenURLOfAnotherDatabase(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	endpoint := sqlq.Endpoint{Name: "x", Handlers: []sqlq.Handler{
		sqlq.Handle(func(context.Context, *sqlq.Delivery[pooledPlain]) error { return nil })}}
	for what, url := range map[string]string{"a migrated one": pgtest.Database(t), "an empty one": pgtest.Empty(t)} {
		err := open(t, pool, sqlq.Config{ListenURL: url}).Run(t.Context(), endpoint)
		if !errors.Is(err, sqlq.ErrListenURLMismatch) {
			t.Errorf("%s: %v, want ErrListenURLMismatch", what, err)
		}
	}
	if _, err := sqlq.Open(t.Context(), pool, sqlq.Config{ListenURL: "postgres://%"}); err == nil {
		t.Error("Open took a ListenURL that is none")
	}
	var refused *pgconn.ConnectError
	err := open(t, pool, sqlq.Config{ListenURL: "postgres://127.0.0.1:1/x"}).Run(t.Context(), endpoint)
	if !errors.As(err, &refused) {
		t.Errorf("nobody there: %v", err)
	}
}
