package bench

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/lab"
	"github.com/sqlq/sqlq/sqlq"
)

var sendBenchmark = Benchmark{
	Name:  "send",
	Short: "Send from 1, 16 and 64 goroutines, and many at once",
	Long: `Send messages one at a time from 1, 16 and 64 goroutines, and many at once with SendMany. Nobody receives.

The floor of single sends is a prepared INSERT of one row, committed by itself, on as many connections as there are
goroutines; the library's pool has as many. The floor of SendMany is a COPY of as many rows.`,
	N: 10_000, NUsage: "messages of one SendMany, and rows of one COPY",
	ConcurrencyUsage: "goroutines to measure besides 1, 16 and 64",
	Duration:         30 * time.Second,
	run:              runSend,
}

type sendResult struct {
	Head
	Rounds        int        `json:"rounds"`
	Singles       []sendRate `json:"singles"`
	Rate1         float64    `json:"rate_1"`
	FloorRate1    float64    `json:"floor_rate_1"`
	Ratio1        float64    `json:"ratio_1"`
	Rate16        float64    `json:"rate_16"`
	FloorRate16   float64    `json:"floor_rate_16"`
	Ratio16       float64    `json:"ratio_16"`
	Rate64        float64    `json:"rate_64"`
	FloorRate64   float64    `json:"floor_rate_64"`
	Ratio64       float64    `json:"ratio_64"`
	Many          int        `json:"many"`
	RateMany      float64    `json:"rate_many"`
	FloorRateMany float64    `json:"floor_rate_many"`
	RatioMany     float64    `json:"ratio_many"`
}

type sendRate struct {
	Goroutines int     `json:"goroutines"`
	Rate       float64 `json:"rate"`
	FloorRate  float64 `json:"floor_rate"`
	Ratio      float64 `json:"ratio"`
}

func runSend(ctx context.Context, l *rig) (Result, error) {
	const queue = "send"
	if err := l.db.queues(ctx, queue); err != nil {
		return nil, err
	}
	goroutines := []int{1, 16, 64}
	if l.Concurrency > 0 && !slices.Contains(goroutines, l.Concurrency) {
		goroutines = append(goroutines, l.Concurrency)
	}
	const rounds = 3
	window := l.Duration / time.Duration(rounds*2*(len(goroutines)+1))
	s, err := newSender(ctx, l, queue, slices.Max(goroutines))
	if err != nil {
		return nil, err
	}
	defer s.pool.Close()
	ours, floors := map[int]lab.Series{}, map[int]lab.Series{}
	var many, manyFloor lab.Series
	for n := range rounds {
		measure := func(what string, into func(rate float64), f func() (float64, error)) func() error {
			return func() error {
				l.progress("round %d of %d: %s", n+1, rounds, what)
				if err := l.db.empty(ctx, queue, floorQueue); err != nil {
					return err
				}
				rate, err := f()
				into(rate)
				return err
			}
		}
		for _, g := range goroutines {
			err := alternate(n,
				measure(fmt.Sprintf("Send from %d goroutines", g), func(rate float64) { ours[g] = append(ours[g], rate) },
					func() (float64, error) { return s.sendSingly(ctx, g, window) }),
				measure(fmt.Sprintf("floor, INSERT on %d connections", g), func(rate float64) { floors[g] = append(floors[g], rate) },
					func() (float64, error) { return s.insertSingly(ctx, g, window) }))
			if err != nil {
				return nil, err
			}
		}
		err := alternate(n,
			measure("SendMany", func(rate float64) { many = append(many, rate) }, func() (float64, error) { return s.sendMany(ctx, window) }),
			measure("floor, COPY", func(rate float64) { manyFloor = append(manyFloor, rate) }, func() (float64, error) { return s.copyMany(ctx, window) }))
		if err != nil {
			return nil, err
		}
	}
	r := &sendResult{Rounds: rounds, Many: l.N}
	for _, g := range goroutines {
		r.Singles = append(r.Singles, sendRate{g, round(ours[g].Median(), 0), round(floors[g].Median(), 0), ratio(ours[g].Median(), floors[g].Median())})
	}
	r.Rate1, r.FloorRate1, r.Ratio1 = r.Singles[0].Rate, r.Singles[0].FloorRate, r.Singles[0].Ratio
	r.Rate16, r.FloorRate16, r.Ratio16 = r.Singles[1].Rate, r.Singles[1].FloorRate, r.Singles[1].Ratio
	r.Rate64, r.FloorRate64, r.Ratio64 = r.Singles[2].Rate, r.Singles[2].FloorRate, r.Singles[2].Ratio
	r.RateMany, r.FloorRateMany = round(many.Median(), 0), round(manyFloor.Median(), 0)
	r.RatioMany = ratio(many.Median(), manyFloor.Median())
	return r, nil
}

// sender sends through the library and past it, over the same connections.
type sender struct {
	pool   *pgxpool.Pool
	client *sqlq.Client
	size   int
	many   int // messages of one SendMany
}

// newSender opens as many connections as there will be goroutines, and all of them now.
func newSender(ctx context.Context, l *rig, queue string, most int) (*sender, error) {
	pool, conns, err := l.db.connectAll(ctx, max(2, most))
	if err != nil {
		return nil, err
	}
	release(conns)
	client, err := l.db.client(ctx, pool, queue, sqlq.Config{})
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &sender{pool: pool, client: client, size: l.Size, many: max(1, l.N)}, nil
}

// sendSingly measures Send from several goroutines.
func (s *sender) sendSingly(ctx context.Context, goroutines int, window time.Duration) (float64, error) {
	return hammer(ctx, goroutines, window, func(ctx context.Context, _ int, n int64) error {
		return s.client.Send(ctx, newNote(n, 0, s.size))
	})
}

// insertFloor stores one row as a message is stored.
const insertFloor = `INSERT INTO ` + schema + `.q_` + floorQueue + ` (id, type, headers, body) VALUES ($1::uuid, $2, NULL, $3::bytea)`

// insertSingly measures single-row INSERTs on several connections.
func (s *sender) insertSingly(ctx context.Context, connections int, window time.Duration) (float64, error) {
	conns, err := acquire(ctx, s.pool, connections)
	if err != nil {
		return 0, err
	}
	defer release(conns)
	return hammer(ctx, connections, window, func(ctx context.Context, g int, n int64) error {
		_, err := conns[g].Exec(ctx, insertFloor, sqlq.NewID(), noteType, newNote(n, 0, s.size).body())
		return err
	})
}

// hammer calls f from several goroutines without a pause, and returns how many calls a second succeeded. A tenth of the
// time goes by before it counts, for what is done once, such as preparing statements.
func hammer(ctx context.Context, goroutines int, window time.Duration, f func(ctx context.Context, goroutine int, n int64) error) (rate float64, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var calls atomic.Int64
	var stop atomic.Bool
	var all sync.WaitGroup
	for g := range goroutines {
		all.Go(func() {
			for n := int64(g); !stop.Load(); n += int64(goroutines) {
				if err := f(ctx, g, n); err != nil {
					cancel(err)
					return
				}
				calls.Add(1)
			}
		})
	}
	defer all.Wait()
	defer stop.Store(true)
	if err := lab.Sleep(ctx, window/10); err != nil {
		return 0, context.Cause(ctx)
	}
	before, began := calls.Load(), time.Now()
	if err := lab.SleepUntil(ctx, began.Add(window)); err != nil {
		return 0, context.Cause(ctx)
	}
	return perSecondOf(calls.Load()-before, time.Since(began)), nil
}

// sendMany measures SendMany, one call after the other.
func (s *sender) sendMany(ctx context.Context, window time.Duration) (float64, error) {
	ms := notes(0, s.many, s.size)
	return repeat(window, len(ms), func() error { return s.client.SendMany(ctx, ms) })
}

// copyMany measures COPY of as many rows. It is handed encoded bodies.
func (s *sender) copyMany(ctx context.Context, window time.Duration) (float64, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Release()
	bodies := make([][]byte, s.many)
	for i := range bodies {
		bodies[i] = newNote(int64(i), 0, s.size).body()
	}
	return repeat(window, len(bodies), func() error { return copyRows(ctx, conn, bodies) })
}

func copyRows(ctx context.Context, conn *pgxpool.Conn, bodies [][]byte) error {
	rows := pgx.CopyFromSlice(len(bodies), func(i int) ([]any, error) {
		return []any{[16]byte(sqlq.NewID()), noteType, bodies[i]}, nil
	})
	_, err := conn.CopyFrom(ctx, pgx.Identifier{schema, "q_" + floorQueue}, []string{"id", "type", "body"}, rows)
	return err
}

// repeat calls f, which does each things, for as long as the window lasts, after once for practice, and returns how many
// things a second it did.
func repeat(window time.Duration, each int, f func() error) (rate float64, err error) {
	if err := f(); err != nil {
		return 0, err
	}
	began, n := time.Now(), int64(0)
	for n == 0 || time.Since(began) < window {
		if err := f(); err != nil {
			return 0, err
		}
		n += int64(each)
	}
	return perSecondOf(n, time.Since(began)), nil
}

// Tables implements Result.
func (r *sendResult) Tables() []Table {
	singles := Table{
		Title:   fmt.Sprintf("Messages of %d bytes, %s", r.Size, ofRounds(r.Rounds)),
		Columns: []string{"one at a time", "Send", "floor: INSERT", "ratio"},
	}
	for _, s := range r.Singles {
		singles.add(fmt.Sprintf("%d goroutines", s.Goroutines), perSecond(s.Rate), perSecond(s.FloorRate), ratioText(s.Ratio))
	}
	many := Table{Columns: []string{"many at once", "SendMany", "floor: COPY", "ratio"}}
	many.add(lab.Thousands(int64(r.Many))+" a call", perSecond(r.RateMany), perSecond(r.FloorRateMany), ratioText(r.RatioMany))
	return []Table{singles, many}
}
