package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/sqlq/sqlq/internal/lab"
)

var poisonBenchmark = Benchmark{
	Name:  "poison",
	Short: "Move a queue in which every message fails to the error table",
	Long: `Handle a backlog with a handler that decodes its message and fails, with Endpoint.Breaker switched off: each message ends in the error
table. In half of the rounds there are no retries; in the others each message is tried four times: one immediate retry, and then
a second round, which goes through the delayed table.

The floor is one statement that moves as many equal rows to the error table, with all that is kept of a failure.`,
	N: 20_000, NUsage: "messages in the backlog",
	ConcurrencyUsage: "messages handled at a time (default 4 × cores)",
	Duration:         30 * time.Second,
	run:              func(ctx context.Context, l *rig) (Result, error) { return poisonRun{l}.run(ctx) },
}

// retriedAttempts is how often a message is tried where there are retries: see receiving.endpoint.
const retriedAttempts = 4

type poisonResult struct {
	Head
	Messages    int     `json:"messages"`
	Rounds      int     `json:"rounds"`
	Rate        float64 `json:"rate"` // messages that reach the error table a second, without retries
	RateRetried float64 `json:"rate_retried"`
	FloorRate   float64 `json:"floor_rate"`
	Ratio       float64 `json:"ratio"` // without retries
	WALBytes    float64 `json:"wal_bytes_per_message"`
}

// poisonRun is a run of `sqlq bench poison`.
type poisonRun struct{ *rig }

func (l poisonRun) run(ctx context.Context) (Result, error) {
	const queue = "poison"
	r := &poisonResult{Messages: l.N}
	if err := l.db.queues(ctx, queue); err != nil {
		return nil, err
	}
	var rates, retried, floors, wal lab.Series
	var err error
	r.Rounds, err = l.rounds(ctx, enoughRounds, func(n int) error {
		return alternate(n, func() error {
			received := walSpan{pool: l.db.pool}
			rate, err := l.fail(ctx, queue, false, &received)
			rates, wal = append(rates, rate), append(wal, float64(received.bytes)/float64(l.N))
			return err
		}, func() error {
			rate, err := l.fail(ctx, queue, true, &walSpan{pool: l.db.pool})
			retried = append(retried, rate)
			return err
		}, func() error {
			rate, err := l.move(ctx, queue)
			floors = append(floors, rate)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	r.Rate, r.RateRetried, r.FloorRate = round(rates.Median(), 0), round(retried.Median(), 0), round(floors.Median(), 0)
	r.Ratio, r.WALBytes = ratio(rates.Median(), floors.Median()), round(wal.Median(), 1)
	return r, nil
}

// fill fills the queue, and empties the error table.
func (l poisonRun) fill(ctx context.Context, queue string) error {
	if err := l.db.empty(ctx, queue); err != nil {
		return err
	}
	if _, err := l.db.pool.Exec(ctx, `TRUNCATE `+schema+`.error`); err != nil {
		return fmt.Errorf("empty the error table: %w", err)
	}
	if err := l.rig.fill(ctx, queue, l.N); err != nil {
		return err
	}
	return l.db.checkpoint(ctx)
}

// fail has one process fail what is in the queue, sees that all of it has, and returns how many a second reached the error table.
func (l poisonRun) fail(ctx context.Context, queue string, retried bool, wal *walSpan) (rate float64, err error) {
	if err := l.fill(ctx, queue); err != nil {
		return 0, err
	}
	calls := int64(l.N)
	if retried {
		calls *= retriedAttempts
	}
	var r receipts
	err = wal.of(ctx, func() (err error) {
		r, err = l.receivers.receive(ctx, 1, spec{Queues: []string{queue}, Handler: failing, Retried: retried}, calls)
		return err
	})
	if err != nil {
		return 0, err
	}
	failed, err := l.db.holds(ctx, schema+".error")
	if err == nil && (failed != int64(l.N) || r.Handled != calls) {
		err = fmt.Errorf("of %d messages %d have failed, in %d attempts", l.N, failed, r.Handled)
	}
	return r.rate() * float64(l.N) / float64(calls), err
}

// move moves as many rows to the error table in one statement, and returns how many a second.
func (l poisonRun) move(ctx context.Context, queue string) (rate float64, err error) {
	if err := l.fill(ctx, queue); err != nil {
		return 0, err
	}
	l.progress("floor: one statement")
	began := time.Now()
	tag, err := l.db.pool.Exec(ctx, `
		WITH taken AS (DELETE FROM `+table(queue)+` RETURNING id, type, headers, body, sent_at, expires_at)
		INSERT INTO `+schema+`.error (id, queue, endpoint, host, type, headers, body, attempts, replays, sent_at, expires_at,
			first_failed_at, error_type, message, chain, fingerprint)
		SELECT id, $1, $1, 'floor', type, headers, body, 1, 0, sent_at, expires_at, clock_timestamp(), 'errors.errorString', $2, ARRAY[$2], '0123456789abcdef' FROM taken`,
		queue, errPoison.Error())
	if err != nil {
		return 0, fmt.Errorf("move rows to the error table: %w", err)
	}
	if tag.RowsAffected() != int64(l.N) {
		return 0, fmt.Errorf("the floor moved %d rows of %d", tag.RowsAffected(), l.N)
	}
	return perSecondOf(int64(l.N), time.Since(began)), nil
}

// Tables implements Result.
func (r *poisonResult) Tables() []Table {
	t := Table{
		Title:   fmt.Sprintf("%s messages of %d bytes that all fail, one receiving process; %s", lab.Thousands(int64(r.Messages)), r.Size, ofRounds(r.Rounds)),
		Columns: []string{"", "messages", "of the floor"},
	}
	t.add("failed at the first attempt", perSecond(r.Rate), ratioText(r.Ratio))
	t.add("failed at the fourth, a delayed retry between", perSecond(r.RateRetried), "")
	t.add("floor: one statement", perSecond(r.FloorRate), ratioText(1))
	costs := Table{Title: "What it costs", Columns: []string{"", ""}}
	costs.add("WAL from fetch to settle, a message", fmt.Sprintf("%.0f bytes", r.WALBytes))
	return []Table{t, costs}
}
