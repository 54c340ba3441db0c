package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
)

// devNote is the file in which `sqlq dev` leaves the URL of its server, for `sqlq dev --url` in other terminals. It is in a
// folder of the user's own: whoever could write it could lead programs to another database. Of several servers it names the
// one that was started last.
func devNote() (string, error) {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "sqlq-dev-url"), nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "sqlq", "dev-url"), nil
}

// noteURL leaves the URL there, and returns what takes it away again, unless another server's has taken its place.
func noteURL(url string) (forget func(), err error) {
	path, err := devNote()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	// Renamed into its place, so that nobody reads half of it.
	partial := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.WriteFile(partial, []byte(url), 0o600); err != nil {
		return nil, err
	}
	if err := os.Rename(partial, path); err != nil {
		return nil, errors.Join(err, os.Remove(partial))
	}
	return func() {
		if text, err := os.ReadFile(path); err == nil && string(text) == url {
			_ = os.Remove(path) // one that stays is found to be stale
		}
	}, nil
}

// notedURL returns the URL of the server that `sqlq dev` started last and that answers.
func notedURL(ctx context.Context) (string, error) {
	const start = "start one, and leave it running: sqlq dev"
	path, err := devNote()
	if err != nil {
		return "", fmt.Errorf("find the server of sqlq dev: %w; copy the URL that it has printed", err)
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("no sqlq dev runs; %s", start)
	}
	if err != nil {
		return "", fmt.Errorf("find the server of sqlq dev: %w; copy the URL that it has printed", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, string(text))
	if err != nil {
		return "", fmt.Errorf("the sqlq dev that was started last does not answer (%w); %s", err, start)
	}
	return string(text), conn.Close(ctx)
}
