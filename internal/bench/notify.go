package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sqlq/sqlq/internal/lab"
	"github.com/sqlq/sqlq/sqlq"
)

var notifyBenchmark = Benchmark{
	Name:  "notify",
	Short: "What waking receivers costs those who send",
	Long: `Count the commits of concurrent senders, each of which sends one message with SendTx in a transaction of its own. NOTIFY
in a transaction makes commits wait for one another, in the whole server.

Receivers are busy: one process works off a backlog with handlers that sleep a little, so that it leaves the processor
alone and never falls asleep. Or they are asleep: a session of the benchmark stands in for them, which holds the queue's
flag and listens, but never wakes up, so every single transaction notifies; that is the worst case, since real receivers
wake. Each is measured against the same with notifications off (Config.NoNotify).`,
	N: 50_000, NUsage: "messages in the backlog of the busy receivers",
	Concurrency: 16, ConcurrencyUsage: "senders",
	Duration: 28 * time.Second,
	run:      func(ctx context.Context, l *rig) (Result, error) { return notifyRun{l}.run(ctx) },
}

type notifyResult struct {
	Head
	Senders        int     `json:"senders"`
	Rounds         int     `json:"rounds"`
	BusyRate       float64 `json:"busy_rate"`
	BusyOffRate    float64 `json:"busy_off_rate"`
	BusyRatio      float64 `json:"busy_ratio"`
	AsleepRate     float64 `json:"asleep_rate"`
	AsleepOffRate  float64 `json:"asleep_off_rate"`
	AsleepRatio    float64 `json:"asleep_ratio"`
	BusyNotified   float64 `json:"busy_notifications_per_commit"`
	AsleepNotified float64 `json:"asleep_notifications_per_commit"`
}

const notifyQueue = "notify"

// notifyRun is a run of `sqlq bench notify`.
type notifyRun struct{ *rig }

func (l notifyRun) run(ctx context.Context) (Result, error) {
	const rounds = 4
	if err := l.db.queues(ctx, notifyQueue); err != nil {
		return nil, err
	}
	window := l.Duration / (4 * rounds)
	r := &notifyResult{Senders: l.Concurrency, Rounds: rounds}
	var busy, busyOff, asleep, asleepOff, busyHeard, asleepHeard, silence lab.Series
	for n := range rounds {
		// Both ways of one state, in turn.
		pair := func(state string, on, off, heard *lab.Series) func(*ear) error {
			measure := func(e *ear, config sqlq.Config, rates, heard *lab.Series) func() error {
				return func() error {
					l.progress("round %d of %d: SendTx from %d goroutines, receivers %s", n+1, rounds, l.Concurrency, state)
					rate, each, err := l.sendTx(ctx, e, config, window)
					*rates, *heard = append(*rates, rate), append(*heard, each)
					return err
				}
			}
			return func(e *ear) error {
				return alternate(n, measure(e, sqlq.Config{}, on, heard), measure(e, sqlq.Config{NoNotify: true}, off, &silence))
			}
		}
		err := alternate(n,
			func() error { return l.whileBusy(ctx, pair("busy", &busy, &busyOff, &busyHeard)) },
			func() error { return l.whileAsleep(ctx, pair("asleep", &asleep, &asleepOff, &asleepHeard)) })
		if err != nil {
			return nil, err
		}
	}
	r.BusyRate, r.BusyOffRate = round(busy.Median(), 0), round(busyOff.Median(), 0)
	r.AsleepRate, r.AsleepOffRate = round(asleep.Median(), 0), round(asleepOff.Median(), 0)
	r.BusyRatio, r.AsleepRatio = ratio(r.BusyRate, r.BusyOffRate), ratio(r.AsleepRate, r.AsleepOffRate)
	r.BusyNotified, r.AsleepNotified = round(busyHeard.Median(), 3), round(asleepHeard.Median(), 3)
	return r, nil
}

// sendTx measures transactions that send one message each, and returns how many notifications each brought.
func (l notifyRun) sendTx(ctx context.Context, e *ear, config sqlq.Config, window time.Duration) (rate, heard float64, err error) {
	pool, conns, err := l.db.connectAll(ctx, l.Concurrency)
	if err != nil {
		return 0, 0, err
	}
	defer pool.Close()
	defer release(conns)
	client, err := l.db.client(ctx, l.db.pool, notifyQueue, config) // SendTx does not use its pool
	if err != nil {
		return 0, 0, err
	}
	var commits atomic.Int64
	before := e.heard.Load()
	rate, err = hammer(ctx, l.Concurrency, window, func(ctx context.Context, g int, n int64) error {
		tx, err := conns[g].Begin(ctx)
		if err != nil {
			return err
		}
		if err := client.SendTx(ctx, tx, newNote(n, 0, l.Size)); err != nil {
			return errors.Join(err, tx.Rollback(context.WithoutCancel(ctx)))
		}
		commits.Add(1)
		return tx.Commit(ctx)
	})
	return rate, float64(e.heard.Load()-before) / float64(max(1, commits.Load())), err
}

// whileBusy calls f while a process is working off a backlog.
func (l notifyRun) whileBusy(ctx context.Context, f func(*ear) error) error {
	const handlers, each = 16, 5 * time.Millisecond
	if err := l.db.empty(ctx, notifyQueue); err != nil {
		return err
	}
	if err := l.fill(ctx, notifyQueue, l.N); err != nil {
		return err
	}
	all, err := l.receivers.employ(ctx, 1, spec{Queues: []string{notifyQueue}, Handler: sleeping, Sleep: each, Concurrency: handlers})
	if err != nil {
		return err
	}
	if err := all.await(ctx, func() bool { return all.handled() > 0 }, "nothing is handled"); err != nil {
		return err
	}
	if err := l.listening(ctx, false, f); err != nil {
		return err
	}
	if left, err := l.db.holds(ctx, table(notifyQueue)); err != nil || left == 0 {
		return fmt.Errorf("the busy receivers had nothing left to do: give a larger -n (%w)", err)
	}
	_, err = l.receivers.dismiss(ctx, all)
	return err
}

// whileAsleep calls f while senders find the queue's receivers asleep, whatever they send.
func (l notifyRun) whileAsleep(ctx context.Context, f func(*ear) error) error {
	if err := l.db.empty(ctx, notifyQueue); err != nil {
		return err
	}
	return l.listening(ctx, true, f)
}

// ear listens to what wakes a queue's receivers.
type ear struct{ heard atomic.Int64 }

// listening calls f while a session listens to the queue's channel and, asleep, holds the flag that sleeping receivers
// hold: see queue_lock_key in the migrations.
func (l notifyRun) listening(ctx context.Context, asleep bool, f func(*ear) error) error {
	pool, conns, err := l.db.connectAll(ctx, 1)
	if err != nil {
		return err
	}
	defer pool.Close()
	defer release(conns)
	conn := conns[0].Conn()
	var channel string
	if err := conn.QueryRow(ctx, `SELECT 'sqlq_' || $1::text::regclass::oid`, table(notifyQueue)).Scan(&channel); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, `LISTEN `+channel); err != nil {
		return err
	}
	if asleep {
		_, err := conn.Exec(ctx, `SELECT pg_advisory_lock_shared(1936813169, `+schema+`.queue_lock_key($1::text::regclass))`, table(notifyQueue))
		if err != nil {
			return err
		}
	}
	e := &ear{}
	hearing, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if _, err := conn.WaitForNotification(hearing); err != nil {
				return // it is stopped, or the senders fail too
			}
			e.heard.Add(1)
		}
	}()
	err = f(e)
	stop()
	<-ended
	return errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
}

// Tables implements Result.
func (r *notifyResult) Tables() []Table {
	t := Table{
		Title: fmt.Sprintf("Transactions of %d senders that send one message of %d bytes each; %s",
			r.Senders, r.Size, ofRounds(r.Rounds)),
		Columns: []string{"receivers", "commits", "notifications off", "ratio", "notifications a commit"},
	}
	t.add("busy", perSecond(r.BusyRate), perSecond(r.BusyOffRate), ratioText(r.BusyRatio), ratioText(r.BusyNotified))
	t.add("asleep", perSecond(r.AsleepRate), perSecond(r.AsleepOffRate), ratioText(r.AsleepRatio), ratioText(r.AsleepNotified))
	return []Table{t}
}
