//go:build unix

package devpg

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

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

// quickDir makes a directory with a short name that every user can write to: in memory, since where thousands of files
// come and go, some disks are slow.
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

// tempDir makes a TMPDIR for the time of the test.
func tempDir(t *testing.T) string {
	t.Helper()
	dir := quickDir(t)
	t.Setenv("TMPDIR", dir)
	return dir
}

func isEmpty(t *testing.T, dir string) {
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

// gone reports whether there is no process with that id.
func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func TestStartAndStop(t *testing.T) {
	root := tempDir(t)
	o := options(t)
	s := start(t)
	if got := query(t, s.URL("template1"), "SELECT current_database()"); got != "template1" {
		t.Errorf("URL(template1) leads to %s", got)
	}
	if o.Major != 0 && s.Major() != o.Major {
		t.Errorf("SQLQ_TEST_POSTGRES=%d, but the server is %s", o.Major, s.Origin())
	}
	if v := query(t, s.URL(""), "SHOW server_version"); !strings.HasPrefix(v, s.Version()) || s.Major() < 14 {
		t.Errorf("Version() is %s, major %d, and the server's is %s", s.Version(), s.Major(), v)
	}
	for setting, want := range map[string]string{
		"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "listen_addresses": "",
		"max_connections": "200", "max_prepared_transactions": "20", "server_encoding": "UTF8", "lc_collate": "C",
	} {
		sql := "SELECT coalesce(current_setting('" + setting + "', true), 'C')" // lc_collate is no setting from 16 on
		if got := query(t, s.URL(""), sql); got != want {
			t.Errorf("%s is %s, want %s", setting, got, want)
		}
	}

	var stops sync.WaitGroup
	for range 3 {
		stops.Go(func() {
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
			if !gone(s.PID()) {
				t.Error("Stop returned before the server had ended")
			}
		})
	}
	stops.Wait()
	select {
	case <-s.Done():
	default:
		t.Error("Done is open after Stop")
	}
	isEmpty(t, root)
}

// The server, and everything in its folder, belongs to the account: another user, without further groups, where the
// test is run by root.
func TestServerAccount(t *testing.T) {
	tempDir(t)
	s := start(t)
	uid := os.Geteuid()
	if uid == 0 {
		as, err := serverAccount(os.Getenv)
		if err != nil || as.uid == 0 {
			t.Fatalf("the account for root is %+v, %v", as, err)
		}
		uid = int(as.uid)
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID())); err == nil {
			for line := range strings.Lines(string(text)) {
				if groups, ok := strings.CutPrefix(line, "Groups:"); ok && strings.TrimSpace(groups) != "" {
					t.Errorf("the server has the supplementary groups %s", groups)
				}
			}
		}
	}
	out, err := exec.Command("ps", "-o", "uid=", "-p", fmt.Sprint(s.PID())).Output()
	if got := strings.TrimSpace(string(out)); err != nil || got != fmt.Sprint(uid) {
		t.Errorf("the server runs as user %s (%v), want %d", got, err, uid)
	}
	err = filepath.Walk(s.folder.path, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Sys().(*syscall.Stat_t).Uid != uint32(uid) {
			t.Errorf("%s belongs to user %d, want %d", path, info.Sys().(*syscall.Stat_t).Uid, uid)
		}
		return nil // files come and go in a running server's folder
	})
	if err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(s.folder.path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("others can enter the folder: %v, %v", info.Mode(), err)
	}
}

func TestAccountForRoot(t *testing.T) {
	env := map[string]string{"SUDO_UID": "65534"}
	as, err := serverAccount(func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	if root := os.Geteuid() == 0; as.other() != root || root && as.uid == 0 {
		t.Errorf("the account is %+v", as)
	}
}

func TestOptionsReachTheServer(t *testing.T) {
	tempDir(t)
	s := start(t, func(o *Options) {
		o.Durable = true
		o.tcp = true
		o.Settings = map[string]string{"application_name": `it's a \ test`, "max_connections": "30"}
	})
	if !strings.Contains(s.URL(""), "@127.0.0.1:") {
		t.Errorf("a server on TCP has the URL %s", s.URL(""))
	}
	for setting, want := range map[string]string{
		"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on",
		"max_connections": "30", "listen_addresses": "127.0.0.1",
	} {
		if got := query(t, s.URL("template1"), "SHOW "+setting); got != want {
			t.Errorf("%s is %s, want %s", setting, got, want)
		}
	}
	if got := query(t, s.URL(""), "SELECT boot_val || reset_val FROM pg_settings WHERE name = 'application_name'"); got == "" {
		t.Error("application_name is not set")
	}
	config, err := pgx.ParseConfig(s.URL(""))
	if err != nil {
		t.Fatal(err)
	}
	config.Password = "wrong"
	if conn, err := pgx.ConnectConfig(t.Context(), config); err == nil {
		conn.Close(t.Context())
		t.Error("a server on TCP lets anybody in")
	}
}

func TestInMemory(t *testing.T) {
	root := tempDir(t)
	s := start(t, func(o *Options) { o.InMemory = true })
	want := memoryRoot()
	if want == "" {
		want = root
	}
	if filepath.Dir(s.folder.path) != want {
		t.Errorf("the folder is %s, want it below %s", s.folder.path, want)
	}
}

func TestSeveralStartsAtOnce(t *testing.T) {
	root := tempDir(t)
	var starts sync.WaitGroup
	for range 3 {
		starts.Go(func() {
			s, err := Start(t.Context(), options(t))
			if err != nil {
				t.Error(err)
				return
			}
			if !answers(s.URL("")) {
				t.Error("the server does not answer")
			}
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
	starts.Wait()
	isEmpty(t, root)
}

func TestStartFails(t *testing.T) {
	root := tempDir(t)
	_, err := Start(t.Context(), options(t, func(o *Options) {
		o.Settings = map[string]string{"shared_buffers": "nonsense"}
	}))
	if err == nil || !strings.Contains(err.Error(), `invalid value for parameter "shared_buffers": "nonsense"`) {
		t.Errorf("the error does not quote the server's log: %v", err)
	}
	_, err = Start(t.Context(), options(t, func(o *Options) {
		o.Settings = map[string]string{"work_mem": "1MB\nfsync = on"}
	}))
	if err == nil || !strings.Contains(err.Error(), "work_mem") {
		t.Errorf("a setting of two lines: %v", err)
	}
	_, err = Start(t.Context(), options(t, func(o *Options) { o.Major = 13 }))
	if err == nil || !strings.Contains(err.Error(), "14 or newer") {
		t.Errorf("version 13: %v", err)
	}
	isEmpty(t, root)
}

// A start that is broken off, at whatever point, leaves nothing behind.
func TestStartIsCancelled(t *testing.T) {
	root := tempDir(t)
	o := options(t)
	for _, after := range []time.Duration{0, 30, 60, 100} {
		ctx, cancel := context.WithTimeout(t.Context(), after*time.Millisecond)
		s, err := Start(ctx, o)
		cancel()
		if err == nil { // it was quicker
			if err := s.Stop(); err != nil {
				t.Errorf("after %d ms: %v", after, err)
			}
		} else if !errors.Is(err, context.DeadlineExceeded) && after == 0 {
			t.Errorf("after %d ms: %v", after, err)
		}
		isEmpty(t, root)
	}
}

func TestServerGivenByURL(t *testing.T) {
	tempDir(t)
	own := start(t)
	s, err := Start(t.Context(), Options{URL: own.URL("template1")})
	if err != nil {
		t.Fatal(err)
	}
	if s.Version() != own.Version() || s.PID() != 0 || !strings.Contains(s.Origin(), " at ") {
		t.Errorf("got %s, pid %d", s.Origin(), s.PID())
	}
	if got := query(t, s.URL(""), "SELECT current_database()"); got != "template1" {
		t.Errorf("URL() leads to %s", got)
	}
	if got := query(t, s.URL("postgres"), "SELECT current_database()"); got != "postgres" {
		t.Errorf("URL(postgres) leads to %s", got)
	}
	if err := s.Stop(); err != nil || !answers(own.URL("")) {
		t.Errorf("Stop must leave it alone: %v", err)
	}
	other := 14 + (own.Major()-13)%4
	if _, err := Start(t.Context(), Options{URL: own.URL(""), Major: other}); err == nil ||
		!strings.Contains(err.Error(), fmt.Sprintf("not %d", other)) {
		t.Errorf("wanted version %d: %v", other, err)
	}
	if err := own.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Options{URL: own.URL("")}); err == nil {
		t.Error("a server that does not answer was taken")
	}
}

// A server that dies by itself is noticed, and Stop still cleans up.
func TestServerDies(t *testing.T) {
	root := tempDir(t)
	s := start(t)
	if err := syscall.Kill(s.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Done():
	case <-time.After(time.Minute):
		t.Fatal("Done is not closed")
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	isEmpty(t, root)
}

// childServer is what the child process tells of its server.
type childServer struct {
	Folder, URL string
	PID         int
	Container   string // its name; then the process id is the client's
}

// child is the test binary as a process that starts a server and never stops it.
func child() {
	o, err := TestOptions()
	if err == nil {
		var s *Server
		o.InMemory = false
		if s, err = Start(context.Background(), o); err == nil {
			err = childDoes(s, os.Getenv("DEVPG_TEST_DO"))
		}
		if err == nil {
			told := childServer{URL: s.URL(""), PID: s.PID()}
			if s.box != nil {
				told.Container, told.PID = s.box.name, s.box.cmd.Process.Pid
			} else {
				told.Folder = s.folder.path
			}
			err = json.NewEncoder(os.Stdout).Encode(told)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {} // until it is killed
}

// childDoes is what a child does with its server before it waits.
func childDoes(s *Server, what string) error {
	switch what {
	case "crash":
		return s.Crash(context.Background())
	case "restart":
		return s.Restart(context.Background())
	case "standby":
		_, err := s.Standby(context.Background(), StandbyOptions{})
		return err
	}
	return nil
}

// startChild starts a child with a server, and returns the child, and a channel that is closed when the last process of
// the server has ended.
func startChild(t *testing.T) (*exec.Cmd, childServer, <-chan struct{}) {
	t.Helper()
	cmd, s := runChild(t)
	lock, err := os.Open(filepath.Join(s.Folder, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	free := make(chan struct{})
	go func() { // ends with the server
		defer lock.Close()
		defer close(free)
		for syscall.Flock(int(lock.Fd()), syscall.LOCK_EX) == syscall.EINTR {
		}
	}()
	return cmd, s, free
}

// runChild starts a child with a server.
func runChild(t *testing.T) (*exec.Cmd, childServer) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "DEVPG_TEST_CHILD=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) // errors: it has ended
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var s childServer
	if err := json.Unmarshal(line, &s); err != nil {
		t.Fatal(err)
	}
	if answers(s.URL) == (os.Getenv("DEVPG_TEST_DO") == "crash") {
		t.Fatal("the child's server is not as it should be")
	}
	return cmd, s
}

func await(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(time.Minute):
		t.Fatal("waited a minute for " + what)
	}
}

func TestParentKilled(t *testing.T) {
	root := tempDir(t)
	cmd, s, free := startChild(t)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	await(t, "the server to go when its parent is killed", free)
	if !gone(s.PID) {
		t.Error("the server survived its parent")
	}
	isEmpty(t, root)
}

// When the guard is killed too the server goes even so. The folder stays, and the next start removes it, but not that
// of a server that runs.
func TestParentAndGuardKilled(t *testing.T) {
	root := tempDir(t)
	running := start(t)
	cmd, s, free := startChild(t)
	var guard int
	out, err := exec.Command("ps", "-o", "ppid=", "-p", fmt.Sprint(s.PID)).Output()
	if _, scanErr := fmt.Sscan(string(out), &guard); err != nil || scanErr != nil || guard <= 1 || guard == cmd.Process.Pid {
		t.Fatalf("the server's guard is %q, %v", out, err)
	}
	if err := syscall.Kill(guard, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !answers(s.URL) {
		t.Error("the server went with its guard")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	await(t, "the server to go when its parent and its guard are killed", free)
	if answers(s.URL) {
		t.Error("the server survived its parent and its guard")
	}
	if _, err := os.Stat(s.Folder); err != nil {
		t.Fatalf("who removed the folder? %v", err)
	}
	third := start(t)
	if _, err := os.Stat(s.Folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the dead server's folder was not swept: %v", err)
	}
	if !answers(running.URL("")) || !answers(third.URL("")) {
		t.Error("a running server was swept")
	}
	if err := errors.Join(running.Stop(), third.Stop()); err != nil {
		t.Error(err)
	}
	isEmpty(t, root)
}

func TestWithDatabase(t *testing.T) {
	for _, given := range []string{
		"postgres://u:p@example.com:1234/one?sslmode=disable",
		"postgresql://u:p@example.com:1234",
		"postgres://u:p@example.com:1234/one?dbname=two&sslmode=disable",
		"postgres://u:p@/one?host=example.com&port=1234",
		"host=example.com port=1234 user=u password=p dbname=one",
		`host=example.com port=1234 user=u password=p`,
	} {
		for _, name := range []string{"other", "it's 100% o\\d/d?"} {
			config, err := pgx.ParseConfig(withDatabase(given, name))
			if err != nil {
				t.Errorf("%s with %s: %v", given, name, err)
			} else if config.Database != name || config.Host != "example.com" || config.Port != 1234 || config.User != "u" {
				t.Errorf("%s with %s: %s at %s:%d", given, name, config.Database, config.Host, config.Port)
			}
		}
		if withDatabase(given, "") != given {
			t.Errorf("%s changed for no name", given)
		}
	}
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]string{
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)": "15.18",
		"15.18 (Debian 15.18-0+deb12u1)":                       "15.18",
		"postgres (PostgreSQL) 18.0":                           "18.0",
		"postgres (PostgreSQL) 18beta1":                        "18beta1",
		"postgres (PostgreSQL) 19devel":                        "19devel",
		"18.4.0":                                               "18.4.0",
		"postgres (Other) x":                                   "",
		"postgres (PostgreSQL) 15.":                            "",
		"":                                                     "",
	} {
		v, err := parseVersion(text)
		if (err != nil) != (want == "") || err == nil && v.String() != want {
			t.Errorf("parseVersion(%q) = %s, %v; want %q", text, v, err, want)
		}
	}
}
