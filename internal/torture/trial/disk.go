package trial

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// disk is a file system of its own, so small that it can be filled, on which the tables of the queues lie. It takes the
// right to mount; without it there is none, and a full disk is only said to be one.
type disk struct {
	folder string
}

const (
	diskSpace = "small"   // the tablespace
	diskBytes = 768 << 20 // far more than the tables need
)

// newDisk mounts a disk and makes a tablespace on it, that a role may use; nil when that is not permitted here.
func newDisk(ctx context.Context, super *pgx.Conn, role string) (*disk, error) {
	var data string
	if err := super.QueryRow(ctx, `SHOW data_directory`).Scan(&data); err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "sqlq-torture-disk-")
	if err != nil {
		return nil, err
	}
	d := &disk{folder: folder}
	if mountSmall(folder, diskBytes) != nil {
		return nil, os.Remove(folder)
	}
	if err := d.furnish(ctx, super, data, role); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// furnish makes the tablespace in a folder that belongs to whom the server runs as.
func (d *disk) furnish(ctx context.Context, super *pgx.Conn, data, role string) error {
	place := filepath.Join(d.folder, "tables")
	if err := errors.Join(os.Chmod(d.folder, 0o755), os.Mkdir(place, 0o700), chownLike(place, data)); err != nil {
		return err
	}
	if _, err := super.Exec(ctx, fmt.Sprintf(`CREATE TABLESPACE %s LOCATION '%s'`, diskSpace, place)); err != nil {
		return err
	}
	_, err := super.Exec(ctx, fmt.Sprintf(`GRANT CREATE ON TABLESPACE %s TO %s`, diskSpace, role))
	return err
}

func (d *disk) ballast() string { return filepath.Join(d.folder, "ballast") }

// fill leaves no room on the disk.
func (d *disk) fill() error {
	f, err := os.Create(d.ballast())
	if err != nil {
		return err
	}
	defer f.Close()
	zeros := make([]byte, 1<<20)
	for err == nil {
		_, err = f.Write(zeros)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	return nil
}

// empty makes room again.
func (d *disk) empty() error { return os.Remove(d.ballast()) }

// close takes the disk away; the server must have been stopped.
func (d *disk) close() error {
	if err := unmount(d.folder); err != nil {
		return fmt.Errorf("unmount %s: %w", d.folder, err)
	}
	return os.Remove(d.folder)
}
