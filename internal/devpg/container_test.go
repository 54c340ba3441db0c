//go:build unix

package devpg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// withEngine makes Start use a container for the duration of the test. It is a real one if SQLQ_POSTGRES_IMAGE names an image, or
// an engine already has the pinned one; testdata/image.sh makes an image where no registry can be reached. Otherwise the engine
// is testdata/engine/docker, which is a fake, and says what it stands in for.
func withEngine(t *testing.T) engine {
	t.Helper()
	o := options(t)
	i := image{name: os.Getenv("SQLQ_POSTGRES_IMAGE")}
	if i.name == "" {
		var err error
		if i, err = findImage(o.Major); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("SQLQ_TEST_POSTGRES", "") // a child must not look for the package
	offline := func(name string) string {
		if name == "SQLQ_OFFLINE" {
			return "1"
		}
		return os.Getenv(name)
	}
	f := &finder{getenv: offline, log: io.Discard}
	if inst, err := f.findContainer(t.Context(), i); err == nil {
		t.Logf("the engine is %s, with the image %s", inst.engine.client, i.name)
		t.Setenv("SQLQ_POSTGRES_IMAGE", i.name)
		return *inst.engine
	} else if os.Getenv("SQLQ_POSTGRES_IMAGE") != "" {
		t.Fatal(err)
	}
	e := fakeEngine(t, o)
	t.Logf("the engine is %s, a fake", e.client)
	return e
}

// fakeEngine puts the fake engine first in PATH.
func fakeEngine(t *testing.T, o Options) engine {
	t.Helper()
	as, err := serverAccount(os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	inst, err := newFinder(o, as, cacheRoot(as)).find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.Abs("testdata/engine")
	if err != nil {
		t.Fatal(err)
	}
	state := quickDir(t)
	if err := os.WriteFile(filepath.Join(state, "image"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("FAKE_ENGINE_DIR", state)
	t.Setenv("FAKE_ENGINE_BIN", inst.bin)
	if as.isOther() {
		t.Setenv("FAKE_ENGINE_AS", fmt.Sprintf("setpriv --reuid=%d --regid=%d --clear-groups", as.uid, as.gid))
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("SQLQ_POSTGRES_IMAGE", "stand-in")
	return engine{client: filepath.Join(dir, "docker"), name: "docker"}
}

// awaitRemoved returns once the engine no longer has the container.
func awaitRemoved(t *testing.T, e engine, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		left, err := e.output(ctx, "ps", "--all", "--quiet", "--filter=name="+name)
		if err == nil && left == "" {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the container %s is still there: %s, %v", name, left, err)
		case <-again.C:
		}
	}
}

func TestContainer(t *testing.T) {
	e := withEngine(t)
	o := Options{Settings: map[string]string{"work_mem": "5MB", "log_line_prefix": `it's a \ test: `}, Log: io.Discard}
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop() })
	if s.box == nil || s.PID() != 0 || !strings.Contains(s.Origin(), "from the image") || !strings.Contains(s.Origin(), e.name) {
		t.Errorf("the server is %s, process %d", s.Origin(), s.PID())
	}
	if v := query(t, s.URL(""), "SHOW server_version"); !strings.HasPrefix(v, s.Version()) {
		t.Errorf("Version() is %s, and the server's is %s", s.Version(), v)
	}
	for setting, want := range map[string]string{
		"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200", "work_mem": "5MB", "log_line_prefix": `it's a \ test: `,
		"server_encoding": "UTF8", "TimeZone": "UTC",
	} {
		if got := query(t, s.URL("template1"), "SHOW "+setting); got != want {
			t.Errorf("%s is %s, want %s", setting, got, want)
		}
	}
	config, err := pgx.ParseConfig(s.URL(""))
	if err != nil {
		t.Fatal(err)
	}
	if ip := net.ParseIP(config.Host); ip == nil || !ip.IsLoopback() {
		t.Errorf("the server is at %s", config.Host)
	}
	config.Password = "wrong"
	if conn, err := pgx.ConnectConfig(t.Context(), config); err == nil {
		conn.Close(t.Context())
		t.Error("the server lets anybody in")
	}

	_, standbyErr := s.Standby(t.Context(), StandbyOptions{})
	for what, err := range map[string]error{
		"crashed": s.Crash(t.Context()), "restarted": s.Restart(t.Context()), "promoted": s.Promote(t.Context()), "copied": standbyErr,
	} {
		if err == nil || !strings.Contains(err.Error(), "runs in a container, and cannot be "+what) {
			t.Errorf("%s in a container: %v", what, err)
		}
	}

	for range 2 {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	}
	await(t, "Done to be closed after Stop", s.Done())
	left, err := e.output(t.Context(), "ps", "--all", "--quiet", "--filter=name="+s.box.name)
	if err != nil || left != "" {
		t.Errorf("Stop has left the container %s, %v", left, err)
	}
}

// A server in memory works too, even with Durable; and one that dies is noticed.
func TestContainerInMemory(t *testing.T) {
	e := withEngine(t)
	s, err := Start(t.Context(), Options{InMemory: true, Durable: true, Log: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop() })
	if got := query(t, s.URL(""), "SHOW fsync"); got != "on" {
		t.Errorf("fsync is %s", got)
	}
	conn, err := pgx.Connect(t.Context(), s.URL(""))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	// The error is that of a broken connection.
	_, _ = conn.Exec(t.Context(), `COPY (SELECT 1) TO PROGRAM 'read -r pid <"$PGDATA/postmaster.pid"; kill -INT "$pid"'`)
	await(t, "Done to be closed when the server has ended", s.Done())
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	awaitRemoved(t, e, s.box.name)
}

// Whatever kills the owner, and even if the client dies with it, the container is removed.
func TestContainerOwnerKilled(t *testing.T) {
	for _, withClient := range []bool{false, true} {
		t.Run(fmt.Sprintf("with its client: %t", withClient), func(t *testing.T) {
			e := withEngine(t)
			owner, s := runChild(t)
			if s.Container == "" {
				t.Fatal("the child's server is not in a container")
			}
			if err := owner.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if withClient {
				if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
					t.Fatal(err)
				}
			}
			awaitRemoved(t, e, s.Container)
			if answers(s.URL) {
				t.Error("the server survived its owner")
			}
		})
	}
}

// A container that was created but never started, because its client was killed in between, is removed by a later start; but
// not one that is just being started.
func TestContainerSweep(t *testing.T) {
	e := withEngine(t)
	old, recent := containerName(time.Now().Add(-2*time.Hour)), containerName(time.Now())
	for _, name := range []string{old, recent} {
		if _, err := e.output(t.Context(), "create", "--name="+name, "--label="+containerLabel, os.Getenv("SQLQ_POSTGRES_IMAGE"), "sh"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = e.output(context.Background(), "rm", "--force", "--volumes", name) })
	}
	e.sweep(t.Context())
	for name, stays := range map[string]bool{old: false, recent: true} {
		found, err := e.output(t.Context(), "ps", "--all", "--quiet", "--filter=name="+name)
		if err != nil || (found != "") != stays {
			t.Errorf("after the sweep %s is %q, %v", name, found, err)
		}
	}
}

func TestContainerStartFails(t *testing.T) {
	withEngine(t)
	start := func(ctx context.Context, o Options) error {
		o.Log = io.Discard
		s, err := Start(ctx, o)
		if err == nil {
			err = fmt.Errorf("it started, and stopped with: %w", s.Stop())
		}
		return err
	}
	err := start(t.Context(), Options{Settings: map[string]string{"shared_buffers": "nonsense"}})
	if err == nil || !strings.Contains(err.Error(), `invalid value for parameter "shared_buffers": "nonsense"`) {
		t.Errorf("the error does not quote the server's log: %v", err)
	}
	if err := start(t.Context(), Options{Settings: map[string]string{"a b": "c"}}); err == nil || !strings.Contains(err.Error(), `"a b"`) {
		t.Errorf("an invalid setting: %v", err)
	}
	if err := start(t.Context(), Options{Major: 99}); err == nil || !strings.Contains(err.Error(), "not 99") {
		t.Errorf("another version: %v", err)
	}
	for _, after := range []time.Duration{50, 200, 400} {
		ctx, cancel := context.WithTimeout(t.Context(), after*time.Millisecond)
		if err := start(ctx, Options{}); err == nil {
			t.Errorf("after %d ms: no error", after)
		}
		cancel()
	}
}

// The client's arguments: only a port on 127.0.0.1 connects the container with the machine, and there is no password among
// the arguments.
func TestContainerArguments(t *testing.T) {
	a := address{host: "127.0.0.1", port: 4711, password: "secret"}
	i := images[0]
	args := strings.Join(runArgs("sqlq-pg-x", a, Options{InMemory: true, Env: []string{"A=b"}}, map[string]string{"fsync": "off"}, i), "\n")
	for _, want := range []string{
		"run", "--interactive", "--rm", "--pull=never", "--sig-proxy=false", "--name=sqlq-pg-x", "--label=" + containerLabel, "--user=postgres",
		"--publish=127.0.0.1:4711:5432", "--tmpfs=/sqlq:mode=1777", "--env=PGDATA=/sqlq/data", "--env=A=b", "--entrypoint=sh\n" + i.name, "-c\nfsync=off",
	} {
		if !strings.Contains("\n"+args+"\n", "\n"+want+"\n") {
			t.Errorf("the client is not told %q:\n%s", want, args)
		}
	}
	if strings.Contains(args, a.password) {
		t.Error("the password is among the arguments")
	}
	if disk := runArgs("sqlq-pg-x", a, Options{}, nil, i); strings.Contains(strings.Join(disk, "\n"), "PGDATA=") {
		t.Errorf("on disk the image decides where: %q", disk)
	}
}

// Of two clients, the first one is used whose engine answers and has the image, or can get it.
func TestEngines(t *testing.T) {
	const hangs = "exec sleep 3600"
	const none = "echo 'Cannot connect to the Docker daemon at unix:///nowhere. Is the docker daemon running?' >&2; exit 1"
	const has = "exit 0"
	const lacks = `case $1 in image) exit 1;; pull) echo "pull $3" >>"$0.pulled";; esac`
	const noRegistry = `case $1 in image) exit 1;; pull) echo "first line" >&2; echo "no such host" >&2; exit 1;; esac`
	const pinned = "docker.io/library/postgres:18.4@sha256:3a82e1f56c8f0f5616a11103ac3d47e632c3938698946a7ad26da0df1334744a"
	for name, c := range map[string]struct {
		docker, podman string
		env            map[string]string
		want           string   // the client, or
		errs           []string // parts of the error
	}{
		"docker first":             {docker: has, podman: has, want: "docker"},
		"a client without engine":  {docker: none, podman: has, want: "podman"},
		"an engine that hangs":     {docker: hangs, podman: has, want: "podman"},
		"another machine's engine": {docker: has, podman: has, env: map[string]string{"DOCKER_HOST": "tcp://docker:2375"}, want: "podman"},
		"this machine's engine":    {docker: has, env: map[string]string{"DOCKER_HOST": "tcp://127.0.0.1:2375"}, want: "docker"},
		"an image to download":     {docker: lacks, want: "docker"},
		"a registry out of reach":  {docker: noRegistry, podman: has, want: "podman"},
		"no client":                {errs: []string{"docker: not in PATH", "podman: not in PATH"}},
		"no engine": {docker: none, podman: hangs, errs: []string{
			"docker: its engine does not answer: Cannot connect to the Docker daemon", "podman: its engine did not answer within 2s"}},
		"offline": {docker: lacks, env: map[string]string{"SQLQ_OFFLINE": "1"}, errs: []string{
			"docker: it does not have the image postgres:18.4, and SQLQ_OFFLINE=1 forbids the download", "podman: not in PATH"}},
		"no registry": {docker: noRegistry, errs: []string{"docker: pull the image postgres:18.4: no such host"}},
		"another machine's alone": {podman: has, env: map[string]string{"CONTAINER_HOST": "ssh://me@there/run/podman.sock"}, errs: []string{
			"podman: CONTAINER_HOST=ssh://me@there/run/podman.sock leads to another machine"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for client, body := range map[string]string{"docker": c.docker, "podman": c.podman} {
				if body != "" {
					script(t, filepath.Join(dir, client), body)
				}
			}
			var said bytes.Buffer
			f := &finder{log: &said, getenv: func(name string) string {
				if name == "PATH" {
					return dir
				}
				return c.env[name]
			}}
			inst, err := f.findContainer(t.Context(), image{pinned})
			if c.want != "" {
				if err != nil || inst.engine.name != c.want || inst.engine.client != filepath.Join(dir, c.want) || inst.version.String() != "18.4" {
					t.Fatalf("got %+v, %v", inst, err)
				}
				pulled, _ := os.ReadFile(filepath.Join(dir, c.want) + ".pulled")
				if (c.docker == lacks) != (string(pulled) == "pull "+pinned+"\n") {
					t.Errorf("pulled %q", pulled)
				}
				if c.docker == lacks && said.String() != "sqlq: downloading the image postgres:18.4 of PostgreSQL with docker\n" {
					t.Errorf("announced: %q", said.String())
				}
				return
			}
			if err == nil {
				t.Fatalf("got %s", inst)
			}
			for _, part := range c.errs {
				if !strings.Contains(err.Error(), part) || !strings.Contains(strings.Join(f.looked, "\n"), part) {
					t.Errorf("does not say %q: %v\nlooked: %q", part, err, f.looked)
				}
			}
		})
	}
}

// The images have the same versions as the packages, each with its digest.
func TestImages(t *testing.T) {
	pinned := regexp.MustCompile(`^docker\.io/library/postgres:[0-9.]+@sha256:[0-9a-f]{64}$`)
	for major := minMajor; major <= newestPinned(); major++ {
		i, err := findImage(major)
		if err != nil {
			t.Fatal(err)
		}
		p, err := findPin("linux-x64", major)
		if err != nil || i.version() != p.postgres() || !pinned.MatchString(i.name) || i.tag() != "postgres:"+p.postgres().String() {
			t.Errorf("the image %s, %s, is not the package %s, %v", i.name, i.tag(), p.name(), err)
		}
	}
	if i, err := findImage(0); err != nil || i.version().major != newestPinned() {
		t.Errorf("the default is %s, %v", i.name, err)
	}
	if _, err := findImage(99); err == nil || !strings.Contains(err.Error(), "no image of PostgreSQL 99, only of 18, 17, 16, 15, 14") {
		t.Errorf("got %v", err)
	}
	if v := (image{"mirror.example.com/postgres:18.4"}).version(); v != (version{}) {
		t.Errorf("a foreign image has version %s", v)
	}
}
