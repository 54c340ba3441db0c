//go:build unix

package devpg

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestMain(m *testing.M) {
	if os.Getenv("DEVPG_TEST_CHILD") != "" {
		child()
	}
	os.Exit(m.Run())
}

// start starts a server whose folder is below TMPDIR, and stops it at the end of the test.
func start(t *testing.T, change ...func(*Options)) *Server {
	t.Helper()
	s, err := Start(t.Context(), options(t, change...))
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

func options(t *testing.T, change ...func(*Options)) Options {
	t.Helper()
	o, err := TestOptions()
	if err != nil {
		t.Fatal(err)
	}
	o.InMemory = false
	for _, c := range change {
		c(&o)
	}
	return o
}

// quickDir creates a directory with a short name that every user can write to: in memory, because some disks are slow when
// thousands of files come and go.
func quickDir(t *testing.T) string {
	t.Helper()
	parent := memoryRoot()
	if parent == "" {
		parent = "/tmp"
	}
	dir, err := os.MkdirTemp(parent, "devpg-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	return dir
}

// tempDir sets a TMPDIR for the duration of the test.
func tempDir(t *testing.T) string {
	t.Helper()
	dir := quickDir(t)
	t.Setenv("TMPDIR", dir)
	return dir
}

func checkEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("%s was left behind", e.Name())
	}
}

func query(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var value string
	if err := conn.QueryRow(t.Context(), sql).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func answers(url string) bool {
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		return false
	}
	conn.Close(context.Background())
	return true
}

// isGone reports whether there is no process with that id.
func isGone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
