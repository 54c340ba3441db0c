package cli

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

// Leases of an instance that lives are released after a question only, which says what it means.
func TestLeaseReleaseAsks(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), `
		SELECT sqlq.create_queue('sales');
		INSERT INTO sqlq.instance (endpoint, host, pid, version, concurrency, session_lock, lease_time) VALUES ('sales', 'h', 1, '', 1, false, interval '1 hour');
		INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, body) VALUES (1, 'sales', 1, sqlq.uuid_v7(), now(), 0, 't', '{}')`); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		answer string
		code   int
		want   string
	}{
		{"n\n", exitError, "nothing was done"},
		{"y\n", 0, "released 1 message"},
		{"y\n", exitNothing, "no such leased messages"},
	} {
		code, _, said := command(t, c.answer, "lease", "release", "--queue", "sales", "--database-url", url)
		if code != c.code || !strings.Contains(said, c.want) {
			t.Errorf("answered %q: exit code %d, want %d and %q:\n%s", c.answer, code, c.code, c.want, said)
		}
		if c.code != exitNothing && !strings.Contains(said, "This will release 1 leased message, 1 of them in the hands of instances that may live, whose handlers go on: those may be handled twice.") {
			t.Errorf("it does not say what that means:\n%s", said)
		}
	}
}
