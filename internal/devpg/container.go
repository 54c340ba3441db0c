package devpg

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// A container is a server in its own container, which does not outlive this process.
//
// The engine's client runs for as long as the container does, and its standard input, whose other end only this process has, is
// the container's. Whatever kills this process or the client, that input ends, and with it the
// server: see container.sh. The engine then removes the container and its data.
type container struct {
	started
	engine engine
	name   string
	leash  io.WriteCloser
	log    *tail
}

//go:embed container.sh
var containerScript string

// containerLabel marks the containers. The name of each contains the time when it was created, in seconds.
const (
	containerLabel  = "sqlq-devpg"
	containerPrefix = "sqlq-pg-"
)

func containerName(at time.Time) string {
	return fmt.Sprintf("%s%d-%s", containerPrefix, at.Unix(), strings.ToLower(rand.Text()[:8]))
}

// startContainer starts a server in a container.
func startContainer(ctx context.Context, o Options, inst installation) (*Server, error) {
	addr, err := newAddress(nil, true)
	if err != nil {
		return nil, err
	}
	settings := serverSettings(o)
	maps.Copy(settings, map[string]string{"listen_addresses": "*", "port": "5432", "unix_socket_directories": ""})
	maps.Copy(settings, o.Settings)
	if _, err := settingLines(settings); err != nil { // refuse here, too, what a configuration file cannot contain
		return nil, err
	}
	inst.engine.sweep(ctx)
	c := &container{engine: *inst.engine, name: containerName(time.Now()), log: new(tail)}
	if err := c.run(addr, runArgs(c.name, addr, o, settings, inst.image)); err != nil {
		return nil, fmt.Errorf("start %s: %w", inst, err)
	}
	s := &Server{address: addr, cheapCheckpoints: !o.Durable, box: c}
	v, err := awaitContainer(ctx, s.URL(""), c)
	if err == nil {
		err = v.checkMajor(o.Major)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w%s", inst, err, c.log.quoted()), c.abandon())
	}
	inst.version = v
	s.version, s.origin = v, inst.String()
	return s, nil
}

// runArgs are the arguments for the engine's client. They do not include the password: anybody on the machine can read them.
func runArgs(name string, a address, o Options, settings map[string]string, i image) []string {
	args := []string{
		"run", "--interactive", "--rm", "--pull=never", "--sig-proxy=false",
		"--name=" + name, "--label=" + containerLabel, "--user=postgres", "--shm-size=1g", "--stop-timeout=1",
		fmt.Sprintf("--publish=%s:%d:5432", a.host, a.port),
		"--env=LC_ALL=C", "--env=SQLQ_INITDB=" + strings.Join(initdbArgs, " "),
	}
	if o.InMemory {
		args = append(args, "--tmpfs=/sqlq:mode=1777", "--env=PGDATA=/sqlq/data")
	} // otherwise it is in the volume of the image's PGDATA, which is removed with the container
	for _, v := range o.Env {
		args = append(args, "--env="+v)
	}
	args = append(args, "--entrypoint=sh", i.name, "-c", containerScript, "sqlq-container")
	for _, setting := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", setting+"="+settings[setting])
	}
	return args
}

// run starts the client in its own session: a Ctrl-C in the terminal does not reach it.
func (c *container) run(a address, args []string) error {
	cmd := exec.Command(c.engine.client, args...)
	cmd.Stdout, cmd.Stderr = c.log, c.log
	cmd.WaitDelay = time.Second
	apart(cmd)
	leash, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.leash = leash
	c.started = started{cmd: cmd}
	c.watch()
	_, _ = io.WriteString(leash, a.password+"\n") // an error means that the client has ended
	return nil
}

// awaitContainer returns the server's version once it answers.
func awaitContainer(ctx context.Context, url string, c *container) (version, error) {
	if err := awaitAnswer(ctx, url, &c.started); err != nil {
		return version{}, err
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return version{}, err
	}
	defer conn.Close(ctx)
	return askVersion(ctx, conn)
}

// stop shuts the server down as SIGINT does, and returns once the container has gone.
func (c *container) stop() error {
	_, _ = io.WriteString(c.leash, "stop\n") // an error means that the client has ended
	c.ended(stopWithin)
	return c.abandon()
}

// abandon ends the container immediately, and returns once it has gone.
func (c *container) abandon() error {
	c.leash.Close()
	ctx, cancel := context.WithTimeout(context.Background(), removeWithin)
	defer cancel()
	remove := func() error {
		_, err := c.engine.output(ctx, "rm", "--force", "--volumes", c.name)
		return err
	}
	if !c.ended(2 * time.Second) {
		_ = remove() // an error means that it is just being created, or removed
		if !c.ended(10 * time.Second) {
			_ = c.cmd.Process.Kill() // it may have just ended
			<-c.done
		}
	}
	left, err := c.engine.output(ctx, "ps", "--all", "--quiet", "--filter=name="+c.name)
	if err == nil && left != "" {
		err = remove()
	}
	if err != nil {
		return fmt.Errorf("remove the server's container: %w; remove it yourself: %s rm --force --volumes %s", err, c.engine.name, c.name)
	}
	return nil
}

// sweep removes containers that were created at least an hour ago and are not running: their client was killed before it could
// start them. A container that cannot be removed stays; that does not prevent a start.
func (e engine) sweep(ctx context.Context) {
	names, _ := e.output(ctx, "ps", "--all", "--filter=label="+containerLabel, "--filter=status=created", "--filter=status=exited", "--format={{.Names}}")
	for name := range strings.FieldsSeq(names) {
		var made int64
		if _, err := fmt.Sscanf(name, containerPrefix+"%d-", &made); err == nil && time.Since(time.Unix(made, 0)) > time.Hour {
			_, _ = e.output(ctx, "rm", "--force", "--volumes", name)
		}
	}
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailSize = 8 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if extra := len(t.text) - tailSize; extra > 0 {
		t.text = slices.Delete(t.text, 0, extra)
	}
	return len(p), nil
}

func (t *tail) quoted() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return quoteLog(string(t.text))
}
