package devpg

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"
)

// cluster creates the data directory of a folder.
//
// initdb takes half a second of CPU time, copying its result does not. So the result of the first run is kept in the cache as
// the seed of later ones. If anything is wrong with a seed, or with the cache, that costs only time: initdb runs
// again.
type cluster struct {
	inst     installation
	run      runner
	cache    string // "" if there is none
	password string // the superuser's, if the server listens on TCP; then there is no seed
}

// create creates the data directory, which must not exist.
func (c cluster) create(ctx context.Context) error {
	seed := c.seed()
	if seed != "" && c.plant(seed) == nil {
		return nil
	}
	if err := c.run.folder.root.RemoveAll("data"); err != nil { // left behind by plant
		return err
	}
	if err := c.initdb(ctx); err != nil {
		return err
	}
	if seed != "" {
		_ = c.harvest(seed) // for the next time; this one does not need it
	}
	return nil
}

// initdbArgs: the server gets nothing of the machine's locale, and nothing is flushed, since nothing is kept.
var initdbArgs = []string{"--username=" + superuser, "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"}

func (c cluster) initdb(ctx context.Context) error {
	folder := c.run.folder
	args := append([]string{"--pgdata=" + folder.data()}, initdbArgs...)
	if c.password == "" {
		args = append(args, "--auth=trust") // only this user can enter the socket's folder
	} else {
		if err := folder.write("password", c.password+"\n"); err != nil {
			return err
		}
		args = append(args, "--auth=scram-sha-256", "--pwfile="+filepath.Join(folder.path, "password"))
	}
	if err := c.run.run(ctx, c.inst.tool("initdb"), args...); err != nil {
		return fmt.Errorf("initdb: %w", err)
	}
	return nil
}

// A seed is a folder in the cache with data, a data directory, and complete, which says how much data there is. It is created by
// a rename, and never changed.
const seedPrefix = "seed-"

// seed returns the seed's path: each installation, each way to run initdb and each user has its own. It is ""
// if there can be none.
func (c cluster) seed() string {
	if c.cache == "" || c.password != "" {
		return ""
	}
	postgres := c.inst.tool("postgres")
	info, err := os.Stat(postgres)
	if err != nil {
		return ""
	}
	h := sha256.New()
	fmt.Fprintln(h, "1", c.inst.version, postgres, info.Size(), info.ModTime().UnixNano(), initdbArgs, c.run.as)
	return filepath.Join(c.cache, fmt.Sprintf("%s%d-%x", seedPrefix, c.inst.version.major, h.Sum(nil)[:8]))
}

// plant creates the data directory from the seed.
func (c cluster) plant(seed string) error {
	want, err := os.ReadFile(filepath.Join(seed, "complete"))
	if err != nil {
		return err
	}
	from, err := os.OpenRoot(filepath.Join(seed, "data"))
	if err != nil {
		return err
	}
	defer from.Close()
	got, err := copyData(c.run.folder.root, from, c.run.as)
	if err != nil {
		return err
	}
	if got != string(want) {
		return fmt.Errorf("the seed %s is damaged: %s, not %s", seed, got, want)
	}
	now := time.Now()
	_ = os.Chtimes(seed, now, now) // still in use, see prune
	return nil
}

// harvest saves the data directory that initdb has just created as the seed.
func (c cluster) harvest(seed string) error {
	return publish(seed, func(partial string) error {
		from, err := c.run.folder.root.OpenRoot("data")
		if err != nil {
			return err
		}
		defer from.Close()
		to, err := os.OpenRoot(partial)
		if err != nil {
			return err
		}
		defer to.Close()
		sum, err := copyData(to, from, account{})
		if err != nil {
			return err
		}
		return to.WriteFile("complete", []byte(sum), 0o600)
	})
}

// copyData copies a data directory into the folder to, as its folder data, for the account. It returns how much that
// was. There can be only folders and plain files.
func copyData(to, from *os.Root, as account) (string, error) {
	var files, bytes int64
	err := fs.WalkDir(from.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := path.Join("data", name)
		if e.IsDir() {
			if err := to.Mkdir(target, 0o700); err != nil {
				return err
			}
			return as.ownIn(to, target)
		}
		if !e.Type().IsRegular() {
			return fmt.Errorf("%s is not a plain file", name)
		}
		n, err := copyFile(to, target, from, name, as)
		files++
		bytes += n
		return err
	})
	return fmt.Sprintf("%d files, %d bytes", files, bytes), err
}

func copyFile(to *os.Root, target string, from *os.Root, name string, as account) (int64, error) {
	in, err := from.Open(name)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := to.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(out, in)
	return n, errors.Join(err, as.own(out), out.Close())
}
