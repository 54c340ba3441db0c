package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/bouncer"
	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

// The demo's orders also come through a transaction pooler exactly once, woken past it with --listen-url.
func TestDemoThroughBouncer(t *testing.T) {
	bouncer.Need(t)
	t.Parallel()
	past := pgtest.Empty(t)
	config, err := pgx.ParseConfig(past)
	if err != nil {
		t.Fatal(err)
	}
	through := bouncer.Start(t, past, bouncer.Options{PoolSize: 60}).URL(config.Database, "default_query_exec_mode=exec")

	code, out, said := command(t, "", "demo", "-o", "json", "-v", "--database-url", through, "--listen-url", past)
	var result struct {
		Orders, Lost, Duplicated int
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v: %s\n%s", code, err, out, said)
	}
	if result.Orders < 500 || result.Lost != 0 || result.Duplicated != 0 {
		t.Errorf("%+v", result)
	}
	if strings.Contains(said, "polling for messages") {
		t.Errorf("endpoints poll although they can listen:\n%s", said)
	}
	if code, _, said := command(t, "", "demo", "--listen-url", past); code != exitUsage || !strings.Contains(said, "--database-url") {
		t.Errorf("--listen-url alone: exit code %d\n%s", code, said)
	}
}
