package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/sqlq/sqlq/internal/devpg"
	"github.com/sqlq/sqlq/internal/lab"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// result is what was measured, through the Go API: the command line adds the start of its process and a connection.
type result struct {
	Through string  `json:"through"`
	Server  string  `json:"server"`
	Waiting int     `json:"waiting"`
	Failed  int     `json:"failed"`
	Groups  int     `json:"groups"`
	Looks   []look  `json:"looks"`
	Replay  replays `json:"replay"`
}

// look is how long something that only looks took.
type look struct {
	Name  string  `json:"name"`
	MS    float64 `json:"ms"` // median
	MaxMS float64 `json:"max_ms"`
	Rows  int     `json:"rows"` // what it returned
}

// replays is a replay that was interrupted and resumed.
type replays struct {
	Messages      int64   `json:"messages"`
	InterruptedAt int64   `json:"interrupted_at"`
	Replayed      int64   `json:"replayed"`
	Seconds       float64 `json:"seconds"`
	PerSecond     float64 `json:"per_second"`
	Lost          int64   `json:"lost"`
	Doubled       int64   `json:"doubled"`
}

func measure(ctx context.Context, z size, server devpg.Options, told func(step string)) (*result, error) {
	s, err := set(ctx, z, server, told)
	if err != nil {
		return nil, err
	}
	defer s.close()
	r := &result{Through: "sqlq/ops", Waiting: z.waiting, Failed: z.failed, Groups: groups}
	if err := s.pool.QueryRow(ctx, `SELECT split_part(current_setting('server_version'), ' ', 1)`).Scan(&r.Server); err != nil {
		return nil, err
	}
	told("looking")
	looks := s.looks()
	if z.filters {
		more, err := s.allFilterLooks(ctx)
		if err != nil {
			return nil, err
		}
		looks = append(looks, more...)
	}
	for _, l := range looks {
		measured, err := l.measure(ctx, z.runs)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l.name, err)
		}
		r.Looks = append(r.Looks, measured)
	}
	told("replaying")
	if r.Replay, err = s.replay(ctx, int64(z.replayed)); err != nil {
		return nil, fmt.Errorf("replay: %w", err)
	}
	return r, nil
}

// looking is something to measure: it returns how many rows it found.
type looking struct {
	name string
	look func(ctx context.Context) (rows int, err error)
}

func (s *scene) looks() []looking {
	timeouts := ops.Filter{Type: "sales.Type0", Since: ops.Ago(time.Hour), Error: "/timeout/"}
	return []looking{
		{"queue ls", func(ctx context.Context) (int, error) {
			list, err := s.ops.Queues.List(ctx)
			return len(list), err
		}},
		{"error groups", func(ctx context.Context) (int, error) {
			list, err := s.ops.Failed.Groups(ctx, ops.Filter{})
			return len(list), err
		}},
		{"error ls --type T --since 1h --error /timeout/", func(ctx context.Context) (int, error) {
			page := timeouts
			page.Limit = 51 // what the command asks for
			list, err := s.ops.Failed.List(ctx, page)
			return len(list), err
		}},
		{"error replay --type T --since 1h --error /timeout/ --dry-run", func(ctx context.Context) (int, error) {
			preview, err := s.ops.Failed.PreviewReplay(ctx, timeouts, ops.ReplayOptions{})
			return int(preview.Messages.N), err
		}},
		{"error replay --all --dry-run", func(ctx context.Context) (int, error) {
			preview, err := s.ops.Failed.PreviewReplay(ctx, ops.Filter{All: true}, ops.ReplayOptions{})
			return int(preview.Messages.N), err
		}},
	}
}

func (l looking) measure(ctx context.Context, runs int) (m look, err error) {
	m.Name = l.name
	var took lab.Series
	for range runs {
		began := time.Now()
		if m.Rows, err = l.look(ctx); err != nil {
			return m, err
		}
		took = append(took, float64(time.Since(began).Microseconds())/1000)
	}
	m.MS, m.MaxMS = took.Median(), slices.Max(took)
	return m, nil
}

// replay replays n messages, of which it is interrupted about half-way, resumes, and looks for every message.
func (s *scene) replay(ctx context.Context, n int64) (r replays, err error) {
	r.Messages = n
	if _, err := s.pool.Exec(ctx, `CREATE TABLE failed_before AS SELECT id FROM sqlq.error`); err != nil {
		return r, err
	}
	began := time.Now()
	interrupted, cancel := context.WithCancel(ctx)
	defer cancel()
	_, err = s.ops.Failed.Replay(interrupted, ops.Filter{All: true, Limit: int(n)}, ops.ReplayOptions{ChangeOptions: ops.ChangeOptions{Progress: func(p ops.Progress) {
		if p.Done >= n/2 {
			cancel()
		}
	}}})
	var stopped *ops.InterruptedError
	switch {
	case errors.As(err, &stopped) && ctx.Err() == nil:
		r.InterruptedAt = stopped.Done
		op, err := s.ops.Operations.Resume(ctx, stopped.Operation, nil)
		if err != nil {
			return r, err
		}
		r.Replayed = op.Done
	case err != nil:
		return r, err
	default: // so few that the first batch was the last
		r.Replayed = n
	}
	r.Seconds = time.Since(began).Seconds()
	r.PerSecond = float64(r.Replayed) / r.Seconds
	err = s.pool.QueryRow(ctx, `
		SELECT count(*) FILTER (WHERE there = 0), count(*) FILTER (WHERE there > 1) FROM (
			SELECT f.id, count(t.id) AS there FROM failed_before f LEFT JOIN (
				SELECT id FROM sqlq.error UNION ALL SELECT id FROM sqlq.q_sales UNION ALL SELECT id FROM sqlq.q_billing UNION ALL SELECT id FROM sqlq.q_shipping
			) t ON t.id = f.id GROUP BY f.id
		) c`).Scan(&r.Lost, &r.Doubled)
	return r, err
}

func (r *result) write(out io.Writer) {
	fmt.Fprintf(out, "%d waiting, %d failed in %d groups, PostgreSQL %s, through %s\n", r.Waiting, r.Failed, r.Groups, r.Server, r.Through)
	for _, l := range r.Looks {
		fmt.Fprintf(out, "%-62s %8.1f ms (%d)\n", l.Name, l.MS, l.Rows)
	}
	fmt.Fprintf(out, "replayed %d, interrupted at %d and resumed: %.0f/s, %d lost, %d doubled\n",
		r.Replay.Replayed, r.Replay.InterruptedAt, r.Replay.PerSecond, r.Replay.Lost, r.Replay.Doubled)
}
