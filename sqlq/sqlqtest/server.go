package sqlqtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sqlq/sqlq/internal/devpg"
	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/migrations"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

// urlVariable names the user's own server.
const urlVariable = "SQLQ_TEST_DATABASE_URL"

// Prefixes of database names. A test's continues with the run it belongs to, a template's with what it is made from.
const (
	databasePrefix = "sqlqtest_"
	templatePrefix = "sqlqtest_template_"
)

// Time limits for operations on a database. They take milliseconds, on a busy machine seconds.
const (
	createWithin = 5 * time.Minute // a template of Prepare may have many migrations
	dropWithin   = time.Minute
)

// server is where the databases of this test binary's tests are.
type server struct {
	*devpg.Server
	run       uint32    // identifies this test binary in the names of its databases
	alive     *pgx.Conn // to the user's own server: holds the lock that shows that this test binary is alive
	prepare   preparation
	created   atomic.Int64
	templates sync.Map // schema → func() (name string, err error)
}

var theServer = sync.OnceValues(func() (*server, error) { return openServer(os.Getenv(urlVariable), prepared) })

// openServer returns the server with that URL; without a URL, the throw-away server, which it starts.
func openServer(url string, prepare preparation) (*server, error) {
	s := &server{run: newRun(), prepare: prepare}
	var err error
	if url == "" {
		if s.Server, err = pgtest.Start(); err != nil {
			or := "; or"
			if missing := new(devpg.NotFoundError); errors.As(err, &missing) { // which ends with a list of what helps
				or = "\n  -"
			}
			return nil, fmt.Errorf("no PostgreSQL for the tests: %w%s set %s to the URL of a server of yours, whose role may create databases", err, or, urlVariable)
		}
		return s, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), createWithin)
	defer cancel()
	if s.Server, err = devpg.Start(ctx, devpg.Options{URL: url}); err != nil {
		return nil, fmt.Errorf("%s: %w; start that server, or unset the variable for a throw-away one", urlVariable, err)
	}
	if err := s.claim(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", urlVariable, err)
	}
	return s, nil
}

func newRun() uint32 {
	var b [4]byte
	rand.Read(b[:]) // never fails: crypto/rand.Read
	return binary.BigEndian.Uint32(b[:])
}

// The first keys of advisory locks in the server's own database: for runs, and for templates that are being made.
const (
	runLock      = 1936815732
	templateLock = 1936815733
)

// claim takes the lock that shows that this run is alive, for the life of the process, and drops the databases of runs that
// were killed before they could do so.
func (s *server) claim(ctx context.Context) (err error) {
	if s.alive, err = pgx.Connect(ctx, s.URL("")); err != nil {
		return err
	}
	if _, err := s.alive.Exec(ctx, `SELECT pg_advisory_lock($1::int, $2::int)`, runLock, int32(s.run)); err != nil {
		return fmt.Errorf("acquire the lock of this run: %w", err)
	}
	rows, err := s.alive.Query(ctx, `SELECT datname FROM pg_database WHERE datname ~ ('^' || $1::text || '[0-9a-f]{8}_')`, databasePrefix)
	if err != nil {
		return fmt.Errorf("list databases that killed tests have left: %w", err)
	}
	left, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("list databases that killed tests have left: %w", err)
	}
	for _, name := range left {
		var run uint32
		if _, err := fmt.Sscanf(name, databasePrefix+"%08x_", &run); err != nil {
			continue
		}
		var dead bool
		if err := s.alive.QueryRow(ctx, `SELECT pg_try_advisory_lock($1::int, $2::int)`, runLock, int32(run)).Scan(&dead); err != nil {
			return fmt.Errorf("check whether run %08x is alive: %w", run, err)
		}
		if !dead {
			continue
		}
		_ = s.DropDatabase(ctx, name) // a database of another role is not ours to drop
		if _, err := s.alive.Exec(ctx, `SELECT pg_advisory_unlock($1::int, $2::int)`, runLock, int32(run)); err != nil {
			return fmt.Errorf("release the lock of run %08x: %w", run, err)
		}
	}
	return nil
}

// create creates a database for a test, with a migrated schema of that name.
func (s *server) create(ctx context.Context, schema, test string) (name string, err error) {
	once, _ := s.templates.LoadOrStore(schema, sync.OnceValues(func() (string, error) { return s.template(schema) }))
	template, err := once.(func() (string, error))()
	if err != nil {
		return "", fmt.Errorf("create the template of test databases: %w", explained(err))
	}
	name = s.databaseName(test)
	if err := s.CreateDatabase(ctx, name, template); err != nil {
		return "", explained(err)
	}
	return name, nil
}

// explained adds what to do if the role may not create databases.
func explained(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "42501" {
		return fmt.Errorf("%w: let the role of %s create databases: ALTER ROLE … CREATEDB", err, urlVariable)
	}
	return err
}

// databaseName names a test's database after it, for people who look at the server.
func (s *server) databaseName(test string) string {
	test = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '_'
	}, test)
	return fmt.Sprintf("%s%08x_%d_%.30s", databasePrefix, s.run, s.created.Add(1), test)
}

// template returns the name of a database with a migrated schema, of which tests' databases are copies. It is made once for each
// set of ingredients; other test binaries that want the same one wait for the one that makes it.
func (s *server) template(schema string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), createWithin)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL(""))
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx)) // which releases the lock
	sum, err := s.digest(schema, conn.Config().User)
	if err != nil {
		return "", err
	}
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1::int, $2::int)`, templateLock, int32(binary.BigEndian.Uint32(sum))); err != nil {
		return "", fmt.Errorf("wait for the run that makes it: %w", err)
	}
	name := fmt.Sprintf("%s%x", templatePrefix, sum)
	var exists bool
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, name).Scan(&exists); err != nil || exists {
		return name, err
	}
	unfinished := s.databaseName("template") // not used until it has its name
	if err := s.CreateDatabase(ctx, unfinished, "template0"); err != nil {
		return "", err
	}
	if err := s.fill(ctx, unfinished, schema, name); err != nil {
		return "", errors.Join(err, s.DropDatabase(context.WithoutCancel(ctx), unfinished))
	}
	return name, nil
}

func (s *server) fill(ctx context.Context, database, schema, name string) error {
	if err := migrate.Up(ctx, s.URL(database), schema); err != nil {
		return err
	}
	if err := installRecorder(ctx, s.URL(database), schema); err != nil {
		return err
	}
	if s.prepare.apply != nil {
		if err := s.prepare.apply(ctx, s.URL(database)); err != nil {
			return fmt.Errorf("function given to Prepare: %w", err)
		}
	}
	return s.MakeTemplate(ctx, database, name)
}

// digest hashes what a template is made from, and the role that may copy it.
func (s *server) digest(schema, role string) ([]byte, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %q %q", schema, role, recorderSQL(schema))
	from := []fs.FS{migrations.FS}
	if s.prepare.from != nil {
		from = append(from, s.prepare.from)
	}
	for _, files := range from {
		err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			text, err := fs.ReadFile(files, name)
			fmt.Fprintf(sum, "%q %q", name, text)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read what it is made from: %w", err)
		}
	}
	return sum.Sum(nil)[:8], nil
}

// preparation is what was given to Prepare.
type preparation struct {
	from  fs.FS
	apply func(ctx context.Context, url string) error
}

var prepared preparation

// Prepare makes the databases of all tests of this test binary start with more than sqlq's schema: with your own tables, for
// example. apply is called once, with the URL of a database in which that schema is already migrated, and tests get copies of
// the result. It may run your migrations and create queues; it must close its connections.
//
// from is what apply works from, such as the folder of your migrations: on a server of yours the copy is kept for later
// runs until one of these files changes. Call Prepare in TestMain or in an init function, before the first Database or Open.
func Prepare(from fs.FS, apply func(ctx context.Context, url string) error) {
	prepared = preparation{from, apply}
}
