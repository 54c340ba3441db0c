package trial

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/lab"
)

// where is a message in one queue.
type where struct {
	queue string
	k     key
}

// failure is a row of the error table.
type failure struct {
	attempts int
	message  string
	at       time.Time
}

// accountant holds what the database says at the end, and judges it.
type accountant struct {
	trial    *trial
	tx       pgx.Tx // one snapshot for everything
	result   *Result
	effects  map[where]int
	failures map[where][]failure
	left     map[where]string // still in a queue, delayed or leased
	sent     map[key]bool     // batches that transactions of senders committed
	expected map[where]bool
	offender *where
	why      string
}

func (t *trial) account(ctx context.Context) (*Result, error) {
	a := &accountant{trial: t, effects: map[where]int{}, failures: map[where][]failure{}, left: map[where]string{}, sent: map[key]bool{}, expected: map[where]bool{}}
	a.result = &Result{Scenario: t.options.Scenario, Seed: t.options.Seed, Duration: seconds(t.options.Duration), Server: t.site.server.Origin(), Skew: t.options.Skew.Seconds(),
		Faults: t.faults.counted(), Skipped: t.skips, SlowestStop: seconds(t.slowest), Replayed: int(t.replayed)}
	if err := t.site.alone(ctx); err != nil {
		return nil, err
	}
	var err error
	if a.tx, err = t.site.admin.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}); err != nil {
		return nil, err
	}
	defer func() { _ = a.tx.Rollback(ctx) }()
	if err := a.read(ctx); err != nil {
		return nil, err
	}
	t.ledger.mu.Lock()
	for _, b := range t.ledger.batches {
		a.judge(b)
	}
	t.ledger.mu.Unlock()
	a.uninvited()
	if err := a.repeats(ctx); err != nil {
		return nil, err
	}
	a.result.Problems = t.problems
	if a.offender != nil {
		a.result.Timeline = a.timeline(ctx, *a.offender, a.why)
	}
	return a.result, nil
}

// each calls f with every row.
func (a *accountant) each(ctx context.Context, f func(pgx.CollectableRow) error, sql string, args ...any) error {
	rows, err := a.tx.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (a *accountant) read(ctx context.Context) error {
	err := a.each(ctx, func(row pgx.CollectableRow) error {
		var w where
		var n int
		err := row.Scan(&w.queue, &w.k, &n)
		a.effects[w] = n
		return err
	}, `SELECT queue, k, count(*) FROM effect GROUP BY 1, 2 UNION ALL SELECT queue, k, count(*) FROM effect_tx GROUP BY 1, 2`)
	if err != nil {
		return fmt.Errorf("read effects: %w", err)
	}
	err = a.each(ctx, func(row pgx.CollectableRow) error {
		var w where
		var f failure
		err := row.Scan(&w.queue, &w.k, &f.attempts, &f.message, &f.at)
		f.at = a.here(f.at)
		a.failures[w] = append(a.failures[w], f)
		return err
	}, `SELECT queue, (convert_from(body, 'UTF8')::json->>'K')::bigint, attempts, message, failed_at FROM sqlq.error ORDER BY seq`)
	if err != nil {
		return fmt.Errorf("read the error table: %w", err)
	}
	err = lab.Lie(ctx, a.tx, "K", queues, func(place, queue string, k int64) {
		if place != "error" {
			a.left[where{queue, key(k)}] += place + " "
		}
	})
	if err != nil {
		return err
	}
	return a.each(ctx, func(row pgx.CollectableRow) error {
		var k key
		err := row.Scan(&k)
		a.sent[k] = true
		return err
	}, `SELECT first FROM sent`)
}

// blame remembers one offending message, the first.
func (a *accountant) blame(w where, format string, args ...any) {
	if a.offender == nil {
		a.offender, a.why = &w, fmt.Sprintf(format, args...)
	}
}

// seen says whether anything is to be seen of a message.
func (a *accountant) seen(w where) bool {
	return a.effects[w] > 0 || len(a.failures[w]) > 0 || a.left[w] != ""
}

// targets are the queues that a batch's messages lie in.
func (b *batch) targets() []string {
	if b.To == "" {
		return []string{hearsQueue, booksQueue}
	}
	return []string{b.To}
}

// judge looks at what became of a batch. Whether one that was not acknowledged was committed is told by its row in sent
// where it had one, else by whether anything is to be seen of it: all its messages, or none.
func (a *accountant) judge(b *batch) {
	committed := b.acked
	if !b.acked {
		a.result.UnknownOutcomes++
		if b.How == "tx" {
			committed = a.sent[b.First]
		} else {
			for i := range key(b.N) {
				for _, q := range b.targets() {
					committed = committed || a.seen(where{q, b.First + i})
				}
			}
		}
		if committed {
			a.result.UnknownStored++
		}
	} else if b.How == "tx" && !a.sent[b.First] {
		a.result.Lost += b.N
		a.blame(where{b.targets()[0], b.First}, "the transaction was acknowledged, and its row is not there")
	}
	for i := range key(b.N) {
		for _, q := range b.targets() {
			w := where{q, b.First + i}
			if !committed {
				if a.seen(w) {
					a.result.Unaccounted++
					a.blame(w, "it was handled, and its transaction did not commit")
				}
				a.expected[w] = true
				continue
			}
			do := deedOf(q, w.k)
			if b.Do != nil {
				do = b.Do[i]
				a.judgePoison(w, do)
			}
			onward := where{onwardQueue, w.k}
			switch {
			case q == mostQueue:
				a.judgeMost(w, do, b)
				continue
			case q == onceQueue:
				a.judgeTwice(w, onward)
			}
			a.judgeOne(w, do)
			if do.sendsOnFrom(q) && a.effects[w] > 0 {
				a.judgeOne(onward, succeed)
			}
		}
	}
}

func (a *accountant) judgePoison(w where, do deed) {
	switch {
	case do.fatal():
		a.result.Killers++
		if len(a.failures[w]) == 1 {
			a.result.KillersFailed++
		}
	case do == succeed:
		a.result.Neighbours++
		if a.effects[w] > 0 && len(a.failures[w]) == 0 {
			a.result.NeighboursHandled++
		} else {
			a.blame(w, "a neighbour of poison was not handled")
		}
	}
}

// judgeOne wants a committed message in one place: the one that its deed leads to.
func (a *accountant) judgeOne(w where, do deed) {
	a.expected[w] = true
	a.result.Messages++
	effects, failures, left := a.effects[w], a.failures[w], a.left[w]
	a.result.Failed += len(failures)
	switch {
	case left != "":
		a.result.Unaccounted++
		a.blame(w, "it is still in %s", left)
	case effects == 0 && len(failures) == 0:
		a.result.Lost++
		a.blame(w, "it is nowhere")
	case len(failures) > 1 && !(w.queue == onceQueue && len(failures) == 2 && effects == 0), len(failures) > 0 && effects > 0:
		a.result.Unaccounted++
		a.blame(w, "it is in the error table %d times and has %d effects", len(failures), effects)
	case do.fails() && len(failures) == 0:
		a.result.Unaccounted++
		a.blame(w, "it ought to have failed and has %d effects", effects)
	case !do.fails() && effects == 0:
		a.result.Unaccounted++
		a.blame(w, "it failed and ought not to have: %s", failures[0].message)
	case inTx(w.queue) && effects > 1:
		a.result.DoubleEffects += effects - 1
		a.blame(w, "HandleTx had %d effects", effects)
	case do.fails() && do != giveUp && failures[0].attempts != attemptsOf(w.queue):
		a.result.WrongAttempts++
		a.blame(w, "it failed after %d attempts, not %d: %s", failures[0].attempts, attemptsOf(w.queue), failures[0].message)
	}
}

// uninvited finds what no batch accounts for.
func (a *accountant) uninvited() {
	for w := range a.effects {
		a.unless(w)
	}
	for w := range a.failures {
		a.unless(w)
	}
	for w := range a.left {
		a.unless(w)
	}
}

func (a *accountant) unless(w where) {
	if !a.expected[w] {
		a.expected[w] = true // count it once
		a.result.Unaccounted++
		a.blame(w, "nobody sent it")
	}
}

// grace is how long a fault may be over before what it explains: an instance that could not say that it lives is found dead
// at somebody's next heartbeat, after its lease, and learns of that at its own.
const grace = 2 * lease

// repeats counts the effects of Handle beyond each message's first, and looks for what explains them: something that
// happened between the two to the process of the earlier one, or to everybody.
func (a *accountant) repeats(ctx context.Context) error {
	return a.each(ctx, func(row pgx.CollectableRow) error {
		var w where
		var runs []int
		var at []time.Time
		if err := row.Scan(&w.queue, &w.k, &runs, &at); err != nil {
			return err
		}
		for i := 1; i < len(at); i++ {
			a.result.Repeated++
			if !a.trial.faults.explains(a.trial.faults.nameOf(runs[i-1]), a.here(at[i-1]).Add(-grace), a.here(at[i])) {
				a.result.Unexplained++
				a.blame(w, "it was repeated, and no fault explains it")
			}
		}
		return nil
	}, `SELECT queue, k, array_agg(run ORDER BY at), array_agg(at ORDER BY at) FROM effect GROUP BY 1, 2 HAVING count(*) > 1`)
}

// here returns what the clock of the processes showed at a time by the server's.
func (a *accountant) here(there time.Time) time.Time { return there.Add(-a.trial.options.Skew) }
