package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/lab"
)

var fairnessBenchmark = Benchmark{
	Name:  "fairness",
	Short: "How far a queue that never runs empty is from first-in-first-out",
	Long: `Keep a queue saturated and see how much later messages are handled than first-in-first-out would have it. Eight senders
put 250 messages each into a transaction, keep it open for up to 20 ms, as an application does that has other things to do
in it, and commit: so transactions overlap, and do not end in the order in which their messages were numbered. Two
processes receive, with handlers that wait for 0.1 ms. Senders pause only while very many messages wait.

The lag of a message is the time from when it should have been handled to when it was. The messages are put in the order in
which their senders' commits returned, within a batch in the order of sending; and the times at which handlers began are put
in order. First-in-first-out, by handlers just as busy, the k-th message would have been handled at the k-th of these times.
A message that was early has no lag. All messages count, those too that are handled after the senders have stopped.`,
	N: 100_000, NUsage: "messages waiting or in hand at which senders pause",
	ConcurrencyUsage: "messages handled at a time in each process (default 4 × cores)",
	Duration:         20 * time.Second,
	run:              func(ctx context.Context, l *rig) (Result, error) { return fairnessRun{l}.run(ctx) },
}

const (
	fairnessQueue     = "fairness"
	fairnessSenders   = 8
	fairnessBatch     = 250
	fairnessOpen      = 20 * time.Millisecond // how long a transaction is open, at most
	fairnessProcesses = 2
	fairnessHandler   = 100 * time.Microsecond
	tooLate           = 1500 * time.Millisecond
)

type fairnessResult struct {
	Head
	Messages   int64   `json:"messages"`
	Rate       float64 `json:"rate"`
	BacklogMin int64   `json:"backlog_min"` // the fewest messages waiting or in hand, in the second half of the sending
	P50        float64 `json:"lag_p50_ms"`
	P95        float64 `json:"lag_p95_ms"`
	P99        float64 `json:"lag_p99_ms"`
	Max        float64 `json:"lag_max_ms"`
	TooLate    float64 `json:"share_above_1500_ms"`
}

// committed is a batch that a sender has sent.
type committed struct {
	first int64 // the number of its first message
	at    time.Time
}

// fairnessRun is a run of `sqlq bench fairness`.
type fairnessRun struct{ *rig }

func (l fairnessRun) run(ctx context.Context) (Result, error) {
	if err := l.db.queues(ctx, fairnessQueue); err != nil {
		return nil, err
	}
	all, err := l.receivers.employ(ctx, fairnessProcesses, spec{Queues: []string{fairnessQueue}, Handler: ordering, Sleep: fairnessHandler})
	if err != nil {
		return nil, err
	}
	if err := l.receivers.awaitInstances(ctx, all, fairnessProcesses); err != nil {
		return nil, err
	}
	batches, backlogMin, err := l.saturate(ctx, all)
	if err != nil {
		return nil, err
	}
	messages := int64(len(batches) * fairnessBatch)
	if err := l.receivers.awaitHandled(ctx, all, messages); err != nil {
		return nil, err
	}
	receipt, err := l.receivers.dismiss(ctx, all)
	if err != nil {
		return nil, err
	}
	lags, err := lagsBehindFIFO(batches, receipt.Order)
	if err != nil {
		return nil, err
	}
	late := 0
	for _, lag := range lags {
		if lag > tooLate {
			late++
		}
	}
	p := percentiles(lags)
	return &fairnessResult{
		Messages: messages, Rate: round(receipt.rate(), 0), BacklogMin: backlogMin,
		P50: p.P50, P95: p.P95, P99: p.P99, Max: p.Max, TooLate: round(float64(late)/float64(messages), 5),
	}, nil
}

// saturate sends for as long as Options.Duration says, and returns what was committed.
func (l fairnessRun) saturate(ctx context.Context, all crew) (batches []committed, backlogMin int64, err error) {
	pool, conns, err := l.db.connectAll(ctx, fairnessSenders)
	if err != nil {
		return nil, 0, err
	}
	defer pool.Close()
	defer release(conns)
	var next, sent atomic.Int64
	var mu sync.Mutex // guards batches and backlogMin
	backlogMin = -1
	end := time.Now().Add(l.Duration)
	full := func() bool {
		waiting := sent.Load() - all.handled()
		mu.Lock()
		defer mu.Unlock()
		if time.Until(end) < l.Duration/2 && (backlogMin < 0 || waiting < backlogMin) {
			backlogMin = waiting
		}
		return waiting >= int64(l.N)
	}
	err = lab.InParallel(fairnessSenders, func(i int) error {
		for time.Now().Before(end) {
			l.progress("sending: handled %s of %s", lab.Thousands(all.handled()), lab.Thousands(sent.Load()))
			if full() {
				if err := lab.Sleep(ctx, time.Millisecond); err != nil {
					return err
				}
				continue
			}
			b := committed{first: next.Add(fairnessBatch) - fairnessBatch}
			if err := l.sendOpenly(ctx, conns[i], b.first); err != nil {
				return err
			}
			b.at = time.Now()
			sent.Add(fairnessBatch)
			mu.Lock()
			batches = append(batches, b)
			mu.Unlock()
		}
		return nil
	})
	return batches, max(0, backlogMin), err
}

// sendOpenly sends a batch in a transaction that stays open for a while.
func (l fairnessRun) sendOpenly(ctx context.Context, conn *pgxpool.Conn, first int64) error {
	bodies := make([]string, fairnessBatch)
	for i := range bodies {
		bodies[i] = string(newNote(first+int64(i), 0, l.Size).body())
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // which does nothing after the commit
	if _, err := tx.Exec(ctx, `SELECT `+schema+`.send_many($1, $2, $3::text[]::json[])`, fairnessQueue, noteType, bodies); err != nil {
		return err
	}
	if err := lab.Sleep(ctx, rand.N(fairnessOpen)); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// lagsBehindFIFO returns how much later than first-in-first-out each message was handled.
func lagsBehindFIFO(batches []committed, order handledOrder) ([]time.Duration, error) {
	at := make([]int64, len(batches)*fairnessBatch) // when each message was handled first; 0: never
	for n, when := range order.each {
		if n < int64(len(at)) && (at[n] == 0 || when < at[n]) {
			at[n] = when
		}
	}
	if n := slices.Index(at, 0); n >= 0 {
		return nil, fmt.Errorf("message %d was not handled", n)
	}
	slots := slices.Sorted(slices.Values(at))
	slices.SortStableFunc(batches, func(a, b committed) int { return a.at.Compare(b.at) })
	lags := make([]time.Duration, 0, len(at))
	for _, b := range batches {
		for n := b.first; n < b.first+fairnessBatch; n++ {
			lags = append(lags, max(0, time.Duration(at[n]-slots[len(lags)])))
		}
	}
	return lags, nil
}

// handledOrder says when messages were handled: for each its number and the nanoseconds since 1970, packed, because there are
// millions of them.
type handledOrder []byte

func (o *handledOrder) add(n, at int64) {
	*o = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint32(*o, uint32(n)), uint64(at))
}

// each calls yield with each number and time.
func (o handledOrder) each(yield func(n, at int64) bool) {
	for ; len(o) >= 12; o = o[12:] {
		if !yield(int64(binary.LittleEndian.Uint32(o)), int64(binary.LittleEndian.Uint64(o[4:]))) {
			return
		}
	}
}

// Tables implements Result.
func (r *fairnessResult) Tables() []Table {
	t := Table{
		Title: fmt.Sprintf("%s messages of %d bytes, %d senders of %d a transaction, %d receiving processes, at least %s waiting or in hand",
			lab.Thousands(r.Messages), r.Size, fairnessSenders, fairnessBatch, fairnessProcesses, lab.Thousands(r.BacklogMin)),
		Columns: []string{"", ""},
	}
	t.add("handled", perSecond(r.Rate))
	t.add("lag behind first-in-first-out, p50", millisecondsText(r.P50))
	t.add("  p95", millisecondsText(r.P95))
	t.add("  p99", millisecondsText(r.P99))
	t.add("  max", millisecondsText(r.Max))
	t.add("  above 1.5 s", fmt.Sprintf("%.2f %%", 100*r.TooLate))
	return []Table{t}
}
