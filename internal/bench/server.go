package bench

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Server is what must be known of a server to compare figures.
type Server struct {
	Version           string `json:"version"`
	ThrowAway         bool   `json:"throw_away"` // started for this run
	Fsync             string `json:"fsync"`
	SynchronousCommit string `json:"synchronous_commit"`
	WALLevel          string `json:"wal_level"`
	SharedBuffers     string `json:"shared_buffers"`
	MaxWALSize        string `json:"max_wal_size"`
	Cores             int    `json:"cores"` // of this machine
}

func readServer(ctx context.Context, pool *pgxpool.Pool, throwAway bool) (Server, error) {
	s := Server{ThrowAway: throwAway, Cores: runtime.NumCPU()}
	err := pool.QueryRow(ctx, `
		SELECT current_setting('server_version'), current_setting('fsync'), current_setting('synchronous_commit'),
			current_setting('wal_level'), current_setting('shared_buffers'), current_setting('max_wal_size')`).
		Scan(&s.Version, &s.Fsync, &s.SynchronousCommit, &s.WALLevel, &s.SharedBuffers, &s.MaxWALSize)
	if err != nil {
		return s, fmt.Errorf("read the server's settings: %w", err)
	}
	s.Version, _, _ = strings.Cut(s.Version, " ") // some add of whom it is
	return s, nil
}

// String writes the settings in a line.
func (s Server) String() string {
	kind := "given"
	if s.ThrowAway {
		kind = "throw-away"
	}
	return fmt.Sprintf("PostgreSQL %s (%s), fsync %s, synchronous_commit %s, wal_level %s, shared_buffers %s, max_wal_size %s, %d cores here",
		s.Version, kind, s.Fsync, s.SynchronousCommit, s.WALLevel, s.SharedBuffers, s.MaxWALSize, s.Cores)
}

// walSpan counts the WAL that the server writes during something, whoever writes it.
type walSpan struct {
	pool   *pgxpool.Pool
	bytes  int64
	images int64 // of whole pages, which follow a checkpoint
}

func (w *walSpan) of(ctx context.Context, f func() error) error {
	bytes, images, err := w.position(ctx)
	if err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	after, imagesAfter, err := w.position(ctx)
	w.bytes, w.images = after-bytes, imagesAfter-images
	return err
}

func (w *walSpan) position(ctx context.Context) (bytes, images int64, err error) {
	err = w.pool.QueryRow(ctx, `
		SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint, wal_fpi FROM pg_stat_wal`).Scan(&bytes, &images)
	if err != nil {
		return 0, 0, fmt.Errorf("read the WAL position: %w", err)
	}
	return bytes, images, nil
}

// statistics is what the server says of itself while a benchmark runs.
type statistics struct {
	*journal
	pool *pgxpool.Pool
	cpu  *accounting // nil: the server's processes are not on this machine
}

// deadTuples is what the statistics say of a queue's table, once those who wrote have ended and so have told.
func (s *statistics) deadTuples(ctx context.Context, queue string) (n int64, err error) {
	err = s.pool.QueryRow(ctx, `SELECT n_dead_tup FROM pg_stat_all_tables WHERE relid = $1::text::regclass`, table(queue)).Scan(&n)
	return n, err
}

// sizes returns the bytes of a queue's table, without and with the bodies stored apart, and of its index.
func (s *statistics) sizes(ctx context.Context, queue string) (heap, index int64, err error) {
	err = s.pool.QueryRow(ctx, `SELECT pg_table_size($1::text::regclass), pg_indexes_size($1::text::regclass)`, table(queue)).Scan(&heap, &index)
	return heap, index, err
}

// deadlocks counts those of the database.
func (s *statistics) deadlocks(ctx context.Context) (n int64, err error) {
	err = s.pool.QueryRow(ctx, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`).Scan(&n)
	return n, err
}

// sessions counts the connections that receiving processes have.
func (s *statistics) sessions(ctx context.Context) (n int64, err error) {
	err = s.pool.QueryRow(ctx, `
		SELECT count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND (application_name = $1 OR application_name IN ('sqlq receive', 'sqlq listen', 'sqlq keep'))`,
		receiverName).Scan(&n)
	return n, err
}

// capacity is how many more connections the server takes.
func (s *statistics) capacity(ctx context.Context) (n int64, err error) {
	err = s.pool.QueryRow(ctx, `
		SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
			- (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')`).Scan(&n)
	return n, err
}

// clockOffset is how far the server's clock is ahead of this machine's: the least uncertain of a few looks.
func (s *statistics) clockOffset(ctx context.Context) (offset time.Duration, err error) {
	best := time.Hour
	for range 20 {
		var there time.Time
		before := time.Now()
		if err := s.pool.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&there); err != nil {
			return 0, fmt.Errorf("read the server's clock: %w", err)
		}
		if took := time.Since(before); took < best {
			best, offset = took, there.Sub(before.Add(took/2))
		}
	}
	return offset, nil
}

// counter counts what the database is asked to do.
type counter struct {
	sql  string
	what string // is counted
}

// statements finds out how statements can be counted: by pg_stat_statements where it works, else only transactions can.
func (s *statistics) statements(ctx context.Context) counter {
	var in string
	err := s.pool.QueryRow(ctx, `
		SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
		WHERE e.extname = 'pg_stat_statements'`).Scan(&in)
	if err == nil {
		// What the benchmark itself asks of the statistics is left out.
		c := counter{what: "statements", sql: fmt.Sprintf(`
			SELECT coalesce(sum(calls), 0)::bigint FROM %s s
			WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND s.query NOT LIKE '%%pg_stat%%'`,
			pgx.Identifier{in, "pg_stat_statements"}.Sanitize())}
		if _, err = c.count(ctx, s.pool); err == nil {
			return c
		}
	}
	s.note("Statements could not be counted, because the server has no pg_stat_statements: transactions were.")
	return counter{what: "transactions", sql: `SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()`}
}

func (c counter) count(ctx context.Context, pool *pgxpool.Pool) (n int64, err error) {
	if err := pool.QueryRow(ctx, c.sql).Scan(&n); err != nil {
		return 0, fmt.Errorf("count %s: %w", c.what, err)
	}
	return n, nil
}

// roles returns what each server process is for, by process id: the application's name, or the kind of process.
func (s *statistics) roles(ctx context.Context) (map[int]string, error) {
	rows, err := s.pool.Query(ctx, `SELECT pid, CASE WHEN backend_type = 'client backend' THEN application_name ELSE backend_type END FROM pg_stat_activity`)
	if err != nil {
		return nil, fmt.Errorf("read the server's processes: %w", err)
	}
	roles := map[int]string{}
	for rows.Next() {
		var pid int
		var role *string
		if err := rows.Scan(&pid, &role); err != nil {
			return nil, err
		}
		if role != nil {
			roles[pid] = strings.TrimSpace(*role)
		}
	}
	return roles, rows.Err()
}
