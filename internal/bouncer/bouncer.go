// Package bouncer starts PgBouncer in front of a database, for tests, if it is installed.
package bouncer

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Options says what PgBouncer Start should start. The zero value pools transactions on up to 20 server connections.
type Options struct {
	// Mode is the pool_mode: transaction, session or statement. Default transaction.
	Mode string
	// PoolSize is the maximum number of server connections per database. Default 20.
	PoolSize int
	// Settings are added to the section [pgbouncer] of its configuration file.
	Settings []string
}

// Bouncer is a running PgBouncer.
type Bouncer struct {
	port    int
	version [2]int // major, minor
}

// path returns the path of the program; "" if it is not installed.
func path() string {
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
		if found, err := exec.LookPath(name); err == nil {
			return found
		}
	}
	return ""
}

// Need skips the test if PgBouncer is not installed.
func Need(t testing.TB) {
	t.Helper()
	if path() == "" {
		t.Skip("PgBouncer is not installed (Debian: apt-get install pgbouncer)")
	}
}

// Start starts PgBouncer in front of the server that a URL leads to, and stops it when the test ends. It skips the test if
// PgBouncer is not installed.
func Start(t testing.TB, server string, o Options) *Bouncer {
	t.Helper()
	Need(t)
	program := path()
	b := &Bouncer{}
	var err error
	if b.version, err = versionOf(program); err != nil {
		t.Fatal(err)
	}
	for range 5 { // another process may take the port meanwhile
		if b.port, err = start(t, program, server, o, b.version); err == nil {
			return b
		}
	}
	t.Fatal("start PgBouncer: ", err)
	return nil
}

// URL returns the URL of a database of the server, through PgBouncer, with further parameters such as
// "default_query_exec_mode=exec".
func (b *Bouncer) URL(database string, parameters ...string) string {
	parameters = append([]string{"sslmode=disable"}, parameters...)
	return fmt.Sprintf("postgres://anybody@127.0.0.1:%d/%s?%s", b.port, url.PathEscape(database), strings.Join(parameters, "&"))
}

// KeepsStatements reports whether the installed PgBouncer keeps prepared statements apart in transaction mode.
func KeepsStatements(t testing.TB) bool {
	t.Helper()
	version, err := versionOf(path())
	if err != nil {
		t.Fatal(err)
	}
	return prepares(version)
}

// Prepares reports whether it keeps prepared statements apart in transaction mode, as it does from 1.21 on.
func (b *Bouncer) Prepares() bool { return prepares(b.version) }

func prepares(version [2]int) bool { return version[0] > 1 || version[1] >= 21 }

func versionOf(program string) (v [2]int, err error) {
	printed, err := exec.Command(program, "--version").Output()
	if err != nil {
		return v, fmt.Errorf("%s --version: %w", program, err)
	}
	numbers := regexp.MustCompile(`PgBouncer (\d+)\.(\d+)`).FindSubmatch(printed)
	if numbers == nil {
		return v, fmt.Errorf("%s --version says %q", program, printed)
	}
	for i := range v {
		v[i], _ = strconv.Atoi(string(numbers[i+1]))
	}
	return v, nil
}

func start(t testing.TB, program, server string, o Options, version [2]int) (port int, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port = listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	text, user, err := configuration(server, o, port, version)
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "sqlq-bouncer-")
	if err != nil {
		return 0, err
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "pgbouncer.ini")
	if user != "" {
		text += "user = " + user + "\n" // it drops root once it listens
	}
	// It contains the password of the test server, but that server listens to its owner only, or has a random one.
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
		return 0, err
	}
	// A shell kills it when standard input closes, which happens with the end of this process, however it dies.
	cmd := exec.Command("/bin/sh", "-c", `"$0" "$1" & trap 'kill -9 $! 2>/dev/null' EXIT; cat >/dev/null`, program, file)
	var log output
	cmd.Stdout, cmd.Stderr = &log, &log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := sync.OnceFunc(func() {
		stdin.Close()
		_ = cmd.Wait()
	})
	t.Cleanup(func() {
		ended()
		if t.Failed() {
			t.Logf("PgBouncer's log:\n%s", log.String())
		}
	})
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			c.Close()
			return port, nil
		}
	}
	ended()
	return 0, fmt.Errorf("it does not listen after 10 s: %s", log.String())
}

// configuration returns PgBouncer's configuration file, and for root the user that it should run as.
func configuration(server string, o Options, port int, version [2]int) (text, user string, err error) {
	to, err := pgx.ParseConfig(server)
	if err != nil {
		return "", "", err
	}
	if o.Mode == "" {
		o.Mode = "transaction"
	}
	if o.PoolSize == 0 {
		o.PoolSize = 20
	}
	if os.Geteuid() == 0 {
		user = ownerOf(to.Host) // the user who may use the server's socket
	}
	target := fmt.Sprintf("host='%s' port=%d user='%s'", to.Host, to.Port, to.User)
	if to.Password != "" {
		target += fmt.Sprintf(" password='%s'", to.Password)
	}
	settings := append([]string{
		"listen_addr = 127.0.0.1",
		fmt.Sprintf("listen_port = %d", port),
		"unix_socket_dir =",
		"auth_type = any",
		"pool_mode = " + o.Mode,
		fmt.Sprintf("default_pool_size = %d", o.PoolSize),
		"max_client_conn = 500",
	}, o.Settings...)
	if prepares(version) {
		settings = append(settings, "max_prepared_statements = 200")
	}
	return fmt.Sprintf("[databases]\n* = %s\n\n[pgbouncer]\n%s\n", target, strings.Join(settings, "\n")), user, nil
}

// output is what a program writes.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

var _ io.Writer = (*output)(nil)
