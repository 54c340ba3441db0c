package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg"
	"github.com/sqlq/sqlq/internal/lab"
)

// rig is the server on which everything is measured, and the rules for that.
type rig struct {
	size   sizes
	log    *slog.Logger                     // of the systems: warnings and errors
	say    func(format string, args ...any) // shows progress
	npm    bool                             // graphile-worker may be fetched
	server *devpg.Server
	admin  *pgxpool.Pool
	temp   string // a folder for other files; removed at the end

	broker  *broker  // RabbitMQ; nil: not started
	fetched *fetched // graphile-worker; nil: not fetched

	databases int   // created so far
	nextID    int64 // of orders
}

// sizes says how much is measured.
type sizes struct {
	Rounds     int           `json:"rounds"`
	Backlog    int           `json:"backlog"`      // messages that are sent in batches and then drained
	Batch      int           `json:"batch"`        // messages per call that sends many
	DrainFor   time.Duration `json:"drain_for_ns"` // a drain that takes longer is cut off
	SendFor    time.Duration `json:"send_for_ns"`  // how long 16 goroutines send
	SendMost   int           `json:"-"`            // how many messages they send at most
	Rate       float64       `json:"rate"`         // messages a second of the latency row
	LatencyFor time.Duration `json:"latency_for_ns"`
}

var (
	defaultSizes = sizes{Rounds: 3, Backlog: 100_000, Batch: 5_000, DrainFor: 8 * time.Second, SendFor: 3 * time.Second,
		SendMost: 1_000_000, Rate: 150, LatencyFor: 4 * time.Second}
	shortSizes = sizes{Rounds: 1, Backlog: 5_000, Batch: 1_000, DrainFor: 5 * time.Second, SendFor: 500 * time.Millisecond,
		SendMost: 1_000_000, Rate: 150, LatencyFor: time.Second}
)

// settings of the server. Only the rig checkpoints, before each measurement, so that no checkpoint happens during some measurements
// and not during others. Everything that makes a commit durable is on, as it is by default.
var settings = map[string]string{
	"checkpoint_timeout": "1h",
	"max_wal_size":       "8GB",
}

// shown are the settings that the report prints.
var shown = []string{"fsync", "synchronous_commit", "full_page_writes", "wal_level", "wal_compression", "shared_buffers",
	"max_wal_size", "checkpoint_timeout", "autovacuum", "max_connections"}

func openRig(ctx context.Context, size sizes, log *slog.Logger, say func(string, ...any), npm bool) (_ *rig, err error) {
	l := &rig{size: size, log: log, say: say, npm: npm, nextID: firstID}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if l.temp, err = os.MkdirTemp("", "sqlq-peers-"); err != nil {
		return nil, err
	}
	if l.server, err = devpg.Start(ctx, devpg.Options{Durable: true, Settings: settings}); err != nil {
		return nil, fmt.Errorf("start a server: %w", err)
	}
	l.admin, err = lab.NewPool(ctx, l.server.URL("postgres"), 2, nil)
	return l, err
}

// close stops everything that was started and removes everything that was written.
func (l *rig) close() error {
	var errs []error
	if l.broker != nil {
		errs = append(errs, l.broker.stop())
	}
	if l.admin != nil {
		l.admin.Close()
	}
	if l.server != nil {
		errs = append(errs, l.server.Stop())
	}
	if l.temp != "" {
		errs = append(errs, os.RemoveAll(l.temp))
	}
	return errors.Join(errs...)
}

// with opens a system on a database of its own, calls f, and removes both.
func (l *rig) with(ctx context.Context, s subject, f func(ctx context.Context, sys system, url string) error) (err error) {
	l.databases++
	name := fmt.Sprintf("peer_%d", l.databases)
	if _, err := l.admin.Exec(ctx, `CREATE DATABASE `+name); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		_, dropErr := l.admin.Exec(ctx, `DROP DATABASE `+name+` WITH (FORCE)`)
		err = errors.Join(err, dropErr)
	}()
	sys, url := s.make(), l.server.URL(name)
	defer sys.close()
	if err := sys.open(ctx, place{rig: l, url: url}); err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if _, err := l.admin.Exec(ctx, `CHECKPOINT`); err != nil {
		return err
	}
	return f(ctx, sys, url)
}

// ids reserves n ids and returns the first.
func (l *rig) ids(n int) int64 {
	first := l.nextID
	l.nextID += int64(n)
	return first
}

// wal returns how many bytes of WAL the server has written so far.
func (l *rig) wal(ctx context.Context) (n int64, err error) {
	err = l.admin.QueryRow(ctx, `SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint`).Scan(&n)
	return n, err
}

// setting is a setting of the server, as the server reports it.
type setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func (l *rig) settings(ctx context.Context) ([]setting, error) {
	rows, err := l.admin.Query(ctx, `
		SELECT name, current_setting(name) FROM unnest($1::text[]) WITH ORDINALITY AS n (name, place) ORDER BY place`, shown)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[setting])
}

// folder creates a folder in the rig's.
func (l *rig) folder(name string) (string, error) {
	path := filepath.Join(l.temp, name)
	return path, os.Mkdir(path, 0o700)
}

// loadAverage returns the machine's load over the last minute, or "" if the system does not report it.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	load, _, _ := strings.Cut(string(text), " ")
	return load
}

func count(ctx context.Context, pool *pgxpool.Pool, sql string) (n int, err error) {
	err = pool.QueryRow(ctx, sql).Scan(&n)
	return n, err
}

// background runs a receiver that ends with its context, and returns a func that stops it. If it ends before, it has failed.
func background(ctx context.Context, in *inbox, release func(), run func(context.Context) error) func(context.Context) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() {
		err := run(ctx)
		if ctx.Err() == nil {
			in.fail(fmt.Errorf("the receiver ended: %w", err))
		}
		ended <- err
	}()
	return func(wait context.Context) error {
		defer release()
		cancel()
		select {
		case err := <-ended:
			if errors.Is(err, context.Canceled) {
				err = nil
			}
			return err
		case <-wait.Done():
			return fmt.Errorf("stop the receiver: %w", wait.Err())
		}
	}
}
