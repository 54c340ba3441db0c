//go:build unix

package devpg

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func standby(t *testing.T, primary *Server, o StandbyOptions) *Server {
	t.Helper()
	s, err := primary.Standby(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// A standby has the primary's data and receives what it writes, takes over when it is promoted, and clients with the URL of
// both find the one that accepts writes. Over a socket, and over TCP, with a password.
func TestStandbyAndPromote(t *testing.T) {
	for _, tcp := range []bool{false, true} {
		root := tempDir(t)
		primary := start(t, durable, func(o *Options) { o.tcp = tcp })
		execute(t, primary.URL(""), `CREATE DATABASE shop`)
		execute(t, primary.URL("shop"), `CREATE TABLE kept AS SELECT n FROM generate_series(1, 10000) n`)
		second := standby(t, primary, StandbyOptions{Synchronous: true})
		execute(t, primary.URL("shop"), `INSERT INTO kept VALUES (0)`)
		if primary.URL("") == second.URL("") || second.PID() == primary.PID() {
			t.Errorf("the standby is the primary: %s", second.URL(""))
		}
		url, err := EitherURL("shop", second, primary) // in this order the standby is asked first, and says no
		if err != nil {
			t.Fatal(err)
		}
		if got := query(t, url, `SELECT current_setting('cluster_name')`); got != "sqlq" {
			t.Errorf("the URL of both leads to %s", got)
		}
		if err := primary.Crash(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := query(t, second.URL("shop"), `SELECT pg_is_in_recovery()::text`); got != "true" {
			t.Errorf("pg_is_in_recovery is %s before the promotion", got)
		}
		if err := second.Promote(t.Context()); err != nil {
			t.Fatal(err)
		}
		execute(t, url, `INSERT INTO kept VALUES (-1)`) // it does not wait for a standby
		if got := query(t, url, `SELECT count(*)::text FROM kept`); got != "10002" {
			t.Errorf("the promoted standby has %s rows, want 10002", got)
		}
		if err := second.Promote(t.Context()); err == nil {
			t.Error("a primary was promoted")
		}
		if err := second.Restart(t.Context()); err != nil {
			t.Error(err)
		}
		for _, s := range []*Server{primary, second} {
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
		}
		checkEmpty(t, root)
	}
}

// With a synchronous standby no commit returns that the standby does not have; with an asynchronous one commits do not wait.
func TestSynchronousStandby(t *testing.T) {
	tempDir(t)
	primary := start(t)
	execute(t, primary.URL(""), `CREATE TABLE kept (n int)`)
	lazy := standby(t, primary, StandbyOptions{})
	if err := lazy.Crash(t.Context()); err != nil {
		t.Fatal(err)
	}
	execute(t, primary.URL(""), `INSERT INTO kept VALUES (1)`)
	strict := standby(t, primary, StandbyOptions{Synchronous: true})
	if err := strict.Crash(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), primary.URL(""))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	returned := make(chan error, 1)
	go func() { // ends when the standby is back
		_, err := conn.Exec(t.Context(), `INSERT INTO kept VALUES (2)`)
		returned <- err
	}()
	const waiting = `SELECT count(*)::text FROM pg_stat_activity WHERE wait_event = 'SyncRep'`
	for late := time.After(time.Minute); query(t, primary.URL(""), waiting) != "1"; {
		select {
		case <-late:
			t.Fatal("a commit does not wait for the standby")
		default: // asking again opens a connection, which takes time
		}
	}
	select {
	case err := <-returned:
		t.Errorf("a commit returned without the standby: %v", err)
	default:
	}
	if err := strict.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-returned:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("a commit still waits for a standby that is back")
	}
}

func TestStandbyFails(t *testing.T) {
	root := tempDir(t)
	primary := start(t, func(o *Options) { o.Settings = map[string]string{"max_replication_slots": "0"} })
	if _, err := primary.Standby(t.Context(), StandbyOptions{}); err == nil {
		t.Error("a server without slots has a standby")
	}
	given := &Server{address: address{given: primary.URL("")}}
	if _, err := given.Standby(t.Context(), StandbyOptions{}); err == nil {
		t.Error("a server that was given by URL was copied")
	}
	if err := given.Crash(t.Context()); err == nil {
		t.Error("a server that was given by URL was crashed")
	}
	if err := primary.Stop(); err != nil {
		t.Fatal(err)
	}
	checkEmpty(t, root)
}
