package devpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// backup copies the data directory of a running server to another folder, so that a standby can start there. It does what
// pg_basebackup does, which the npm packages lack: they contain only initdb and postgres. See "Making a Base Backup Using the Low
// Level API" in PostgreSQL's manual.
//
// What the server writes meanwhile need not be in the copy, or may be there only in part: the standby replays all of it from the
// WAL, which the primary must keep from now on.
func backup(ctx context.Context, conn *pgx.Conn, major int, to, from *folder) error {
	begin, finish := `SELECT pg_backup_start('sqlq', true)`, `SELECT labelfile FROM pg_backup_stop(false)`
	if major < 15 {
		begin, finish = `SELECT pg_start_backup('sqlq', true, false)`, `SELECT labelfile FROM pg_stop_backup(false, false)`
	}
	if _, err := conn.Exec(ctx, begin); err != nil {
		return fmt.Errorf("start the backup: %w", err)
	}
	if err := copyRunning(ctx, to, from); err != nil {
		return fmt.Errorf("copy the data: %w", err)
	}
	var label string
	if err := conn.QueryRow(ctx, finish).Scan(&label); err != nil {
		return fmt.Errorf("finish the backup: %w", err)
	}
	return to.write("data/backup_label", label)
}

// The contents of these folders are not copied: they belong to the running server alone, or are the WAL, which the standby
// fetches. The list is the manual's.
var runningOnlyIn = []string{"pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans", "pg_wal"}

func runningOnly(name string) bool {
	dir, _, inside := strings.Cut(name, "/")
	return inside && slices.Contains(runningOnlyIn, dir)
}

const controlFile = "global/pg_control" // copied last

func copyRunning(ctx context.Context, to, from *folder) error {
	source, err := from.root.OpenRoot("data")
	if err != nil {
		return err
	}
	defer source.Close()
	err = fs.WalkDir(source.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, fs.ErrNotExist):
			return nil // files come and go
		case err != nil:
			return err
		case runningOnly(name) && e.IsDir():
			return fs.SkipDir
		case runningOnly(name):
			return nil
		case e.IsDir():
			return errors.Join(to.root.Mkdir(path.Join("data", name), 0o700), to.as.ownIn(to.root, path.Join("data", name)))
		case name == "postmaster.pid", name == "postmaster.opts", name == controlFile:
			return nil
		}
		return copyLive(to, source, name)
	})
	if err != nil {
		return err
	}
	return copyLive(to, source, controlFile)
}

// copyLive copies a file that the server may remove at any moment.
func copyLive(to *folder, source *os.Root, name string) error {
	_, err := copyFile(to.root, path.Join("data", name), source, name, to.as)
	return ignoreMissing(err)
}
