package main

import (
	"bufio"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/lab"
)

//go:embed graphile/package.json graphile/package-lock.json graphile/worker.mjs
var graphileFiles embed.FS

func graphileSubjects() []subject {
	version := graphileVersion()
	contract := "At least once, in a Node.js process; jobs are added by its SQL functions, here from Go. The row is deleted. A " +
		"job of a crashed process is free again after four hours. Every job locks, and every one that is added, notifies."
	one := func(key, title, how, tuned string, rows []row, p time.Duration) subject {
		return subject{
			key: key, title: title, version: version, rows: rows, tuned: tuned, contract: contract, poll: p,
			make: func() system { return &graphileSystem{how: how} },
			available: func(ctx context.Context, l *rig) (err error) {
				if l.fetched == nil {
					l.fetched, err = fetchGraphile(ctx, l)
				}
				return err
			},
		}
	}
	return []subject{
		one("graphile_worker", "graphile-worker, tuned", "tuned",
			"As its own perfTest: 24 jobs at a time, local queue of 500, refetchDelay 10 ms, completions in batches.", allRows, 0),
		one("graphile_worker_defaults", "graphile-worker, defaults", "defaults",
			"Defaults: one job at a time, no local queue, LISTEN, polls every 2 s.", []row{rowP50, rowP99}, 2*time.Second),
	}
}

// graphileVersion is the pinned version.
func graphileVersion() string {
	var pinned struct{ Dependencies map[string]string }
	text, err := graphileFiles.ReadFile("graphile/package.json")
	if err == nil {
		err = json.Unmarshal(text, &pinned)
	}
	if err != nil {
		panic(fmt.Sprintf("graphile/package.json: %v", err)) // it is linked in
	}
	return "v" + pinned.Dependencies["graphile-worker"]
}

// fetched is a folder with graphile-worker and the script that runs it.
type fetched struct{ dir string }

// fetchGraphile installs exactly what package-lock.json pins, in the rig's folder.
func fetchGraphile(ctx context.Context, l *rig) (*fetched, error) {
	if !l.npm {
		return nil, fmt.Errorf("%w: graphile-worker is fetched with npm, which needs the flag -npm", errNotHere)
	}
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w: %s is not installed", errNotHere, program)
		}
	}
	dir, err := l.folder("graphile")
	if err != nil {
		return nil, err
	}
	if err := os.CopyFS(dir, graphileFiles); err != nil {
		return nil, err
	}
	dir = filepath.Join(dir, "graphile")
	l.say("npm ci, for graphile-worker")
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	return &fetched{dir: dir}, nil
}

type graphileSystem struct {
	how string // worker.mjs knows the words

	at   place
	pool *pgxpool.Pool
}

func (g *graphileSystem) open(ctx context.Context, at place) (err error) {
	g.at = at
	migrate := g.node(ctx, "migrate")
	if out, err := migrate.CombinedOutput(); err != nil {
		return fmt.Errorf("make graphile-worker's tables: %w\n%s", err, out)
	}
	g.pool, err = lab.NewPool(ctx, at.url, sendConns, nil)
	return err
}

func (g *graphileSystem) node(ctx context.Context, how string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "node", "worker.mjs", g.at.url, how)
	cmd.Dir = g.at.rig.fetched.dir
	return cmd
}

func (g *graphileSystem) send(ctx context.Context, o Order) error {
	_, err := g.pool.Exec(ctx, `SELECT FROM graphile_worker.add_job('place_order', $1::json)`, string(encode(o)))
	return err
}

func (g *graphileSystem) sendMany(ctx context.Context, os []Order) error {
	bodies := make([]string, len(os))
	for i, o := range os {
		bodies[i] = string(encode(o))
	}
	_, err := g.pool.Exec(ctx, `
		SELECT count(*) FROM graphile_worker.add_jobs(ARRAY(
			SELECT ('place_order', body::json, NULL, NULL, NULL, NULL, NULL, NULL)::graphile_worker.job_spec FROM unnest($1::text[]) AS body))`, bodies)
	return err
}

func (g *graphileSystem) receive(ctx context.Context, in *inbox) (func(context.Context) error, error) {
	cmd := g.node(context.WithoutCancel(ctx), g.how) // it ends with its standard input, even if this process dies
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var complaints strings.Builder
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		lines := bufio.NewScanner(output)
		for lines.Scan() {
			if lines.Text() == "ready" {
				close(ready)
				continue
			}
			id, at, err := handledLine(lines.Text())
			if err != nil {
				in.fail(err)
				continue
			}
			in.handled(id, at)
		}
		err := errors.Join(lines.Err(), cmd.Wait())
		if err != nil {
			err = fmt.Errorf("graphile-worker: %w\n%s", err, complaints.String())
			in.fail(err)
		}
		ended <- err
	}()
	stop := func(ctx context.Context) error {
		input.Close()
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("stop graphile-worker: %w", ctx.Err()), cmd.Process.Kill())
		}
	}
	select {
	case <-ready:
		return stop, nil
	case err := <-ended:
		return nil, errors.Join(errors.New("graphile-worker did not start"), err)
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), cmd.Process.Kill())
	}
}

// handledLine reads what worker.mjs writes for an order.
func handledLine(line string) (id int64, at time.Time, err error) {
	first, second, _ := strings.Cut(line, " ")
	id, err = strconv.ParseInt(first, 10, 64)
	us, err2 := strconv.ParseInt(second, 10, 64)
	if err := errors.Join(err, err2); err != nil {
		return 0, time.Time{}, fmt.Errorf("graphile-worker said %q: %w", line, err)
	}
	return id, time.UnixMicro(us), nil
}

func (g *graphileSystem) left(ctx context.Context) (int, error) {
	return count(ctx, g.pool, `SELECT count(*) FROM graphile_worker.jobs`)
}

func (g *graphileSystem) close() {
	if g.pool != nil {
		g.pool.Close()
	}
}
