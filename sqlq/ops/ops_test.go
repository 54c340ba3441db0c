package ops_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/migrations"
	"github.com/sqlq/sqlq/sqlq/migrate"
	"github.com/sqlq/sqlq/sqlq/ops"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// database is one test's database with an Ops on it, and SQL beside it to set scenes and look at what came of them.
type database struct {
	*ops.Ops
	t    *testing.T
	pool *pgxpool.Pool
}

func open(t *testing.T) database {
	t.Helper()
	return openSchema(t, pgtest.Database(t), "sqlq")
}

// openOdd opens a database of its own with sqlq in a schema of any name.
func openOdd(t *testing.T, schema string) database {
	t.Helper()
	url := pgtest.Empty(t)
	if err := migrate.Up(t.Context(), url, schema); err != nil {
		t.Fatal(err)
	}
	return openSchema(t, url, schema)
}

func openSchema(t *testing.T, url, schema string) database {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return database{ops.New(pool, schema), t, pool}
}

func (d database) exec(sql string, args ...any) {
	d.t.Helper()
	if _, err := d.pool.Exec(d.t.Context(), sql, args...); err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
}

func (d database) number(sql string, args ...any) (n int64) {
	d.t.Helper()
	if err := d.pool.QueryRow(d.t.Context(), sql, args...).Scan(&n); err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func (d database) text(sql string, args ...any) (text string) {
	d.t.Helper()
	if err := d.pool.QueryRow(d.t.Context(), sql, args...).Scan(&text); err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
	return text
}

func (d database) create(queues ...string) {
	d.t.Helper()
	for _, name := range queues {
		if _, err := d.Queues.Create(d.t.Context(), name); err != nil {
			d.t.Fatal(err)
		}
	}
}

// fail puts n failed messages of a queue into the error table, of one group.
func (d database) fail(queue, group string, n int) {
	d.t.Helper()
	d.exec(`INSERT INTO sqlq.error (id, queue, endpoint, host, type, headers, body, attempts, sent_at, first_failed_at,
			error_type, message, fingerprint)
		SELECT sqlq.uuid_v7(), $1, $1, 'h1', 'sales.PlaceOrder', '{"tenant":"north"}', '{"order":1}', 7, now() - interval '1 hour',
			now() - interval '1 minute', '*errors.errorString', 'card refused', $2
		FROM generate_series(1, $3)`, queue, group, n)
}

func TestSchemaVersion(t *testing.T) {
	d := open(t)
	version, exists, err := d.SchemaVersion(t.Context())
	if err != nil || !exists || version != migrations.Latest() {
		t.Errorf("migrated: version %d, exists %v, err %v", version, exists, err)
	}
	version, exists, err = ops.New(d.pool, "elsewhere").SchemaVersion(t.Context())
	if err != nil || exists || version != 0 {
		t.Errorf("no schema: version %d, exists %v, err %v", version, exists, err)
	}
}

func TestInterrupted(t *testing.T) {
	d := open(t)
	d.create("sales")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Queues.List(ctx); err == nil {
		t.Error("Queues.List ignores the end of its context")
	}
}
