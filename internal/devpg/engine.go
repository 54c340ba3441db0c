package devpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os/exec"
	"strings"
	"time"
)

// engine is a container engine, Docker or Podman, that has answered.
type engine struct {
	client string // the path of the program
	name   string // docker or podman
}

// engines are tried in this order. A client does not mean that there is an engine: Docker's is often installed alone.
var engines = []struct {
	name string
	host string // the environment variable that says where the engine is
}{
	{"docker", "DOCKER_HOST"},
	{"podman", "CONTAINER_HOST"},
}

// answersWithin is how long an engine may take to answer. People without an engine should not have to wait for one that hangs.
const answersWithin = 2 * time.Second

// findContainer returns the image in the first engine that answers and can get it.
func (f *finder) findContainer(ctx context.Context, i image) (installation, error) {
	var errs []error
	for _, known := range engines {
		client := lookPath(f.path(), known.name)
		if client == "" {
			errs = append(errs, f.fault(known.name, errors.New("not in PATH")))
			continue
		}
		e := engine{client: client, name: known.name}
		if err := f.prepare(ctx, e, known.host, i); err != nil {
			errs = append(errs, f.fault(client, err))
			continue
		}
		return installation{version: i.version(), engine: &e, image: i}, nil
	}
	return installation{}, errors.Join(errs...)
}

// prepare makes sure that the engine can run the image.
func (f *finder) prepare(ctx context.Context, e engine, hostVariable string, i image) error {
	if host := f.getenv(hostVariable); isRemote(host) {
		return fmt.Errorf("%s=%s leads to another machine, whose ports cannot be reached at 127.0.0.1", hostVariable, host)
	}
	if err := e.ping(ctx); err != nil {
		return err
	}
	return e.provide(ctx, i, f.getenv, f.log)
}

// ping checks that the engine answers a small request.
func (e engine) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, answersWithin, fmt.Errorf("its engine did not answer within %s", answersWithin))
	defer cancel()
	if _, err := e.output(ctx, "ps", "--quiet"); err != nil {
		if ctx.Err() != nil {
			return err
		}
		return fmt.Errorf("its engine does not answer: %w", err)
	}
	return nil
}

// isRemote reports whether the engine's address, as its variable gives it, is on another machine.
func isRemote(host string) bool {
	u, err := url.Parse(host)
	if err != nil {
		return false // the client will say what is wrong
	}
	switch u.Scheme {
	case "tcp", "http", "https", "ssh":
		ip := net.ParseIP(u.Hostname())
		return u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback())
	}
	return false
}

// output runs the client and returns what it prints. The error is the last line of its error output.
func (e engine) output(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, e.client, args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err == nil {
		return strings.TrimSpace(string(out)), nil
	}
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		lines := strings.Split(strings.TrimSpace(string(exit.Stderr)), "\n")
		if last := strings.TrimSpace(lines[len(lines)-1]); last != "" {
			return "", errors.New(last)
		}
	}
	return "", err
}

// provide makes sure that the engine has the image, which it may have to download.
func (e engine) provide(ctx context.Context, i image, getenv func(string) string, log io.Writer) error {
	if _, err := e.output(ctx, "image", "inspect", "--format", "{{.Id}}", i.name); err == nil {
		return nil
	} else if ctx.Err() != nil {
		return err
	}
	if v := getenv("SQLQ_OFFLINE"); v != "" && v != "0" {
		return fmt.Errorf("it does not have the image %s, and SQLQ_OFFLINE=%s forbids the download", i.tag(), v)
	}
	fmt.Fprintf(log, "sqlq: downloading the image %s of PostgreSQL with %s\n", i.tag(), e.name)
	if _, err := e.output(ctx, "pull", "--quiet", i.name); err != nil {
		return fmt.Errorf("pull the image %s: %w", i.tag(), err)
	}
	return nil
}
