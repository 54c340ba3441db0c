package trial

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sqlq/sqlq/internal/devpg"
)

// A table on a disk that is full refuses rows as PostgreSQL does, and takes them again when there is room.
// Where no file system may be mounted there is no disk.
func TestDisk(t *testing.T) {
	t.Parallel()
	server, err := devpg.Start(t.Context(), devpg.Options{InMemory: true})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), server.URL(""))
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDisk(t.Context(), conn, "postgres")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
		if d == nil {
			return
		}
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
	if d == nil {
		if folder := t.TempDir(); mountSmall(folder, diskBytes) == nil {
			t.Errorf("a file system may be mounted here, and there is no disk: %v", unmount(folder))
		}
		return
	}
	insert := func() error {
		_, err := conn.Exec(t.Context(), `INSERT INTO rows SELECT repeat('x', 1000) FROM generate_series(1, 1000)`)
		return err
	}
	if _, err := conn.Exec(t.Context(), `CREATE TABLE rows (x text) TABLESPACE `+diskSpace); err != nil {
		t.Fatal(err)
	}
	if err := d.fill(); err != nil {
		t.Fatal(err)
	}
	var pg *pgconn.PgError
	if err := insert(); !errors.As(err, &pg) || pg.Code != "53100" {
		t.Errorf("a row for a full disk: %v", err)
	}
	if err := errors.Join(d.empty(), insert()); err != nil {
		t.Error(err)
	}
}
