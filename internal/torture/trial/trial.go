package trial

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlq/sqlq/internal/lab"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// Scenarios.
const (
	Mixed  = "mixed"  // every kind of fault
	Poison = "poison" // only messages that are faults
	Calm   = "calm"   // no fault at all: nothing may be repeated
)

// Options say what trial to run.
type Options struct {
	Scenario string // default Mixed
	Duration time.Duration
	Seed     uint64
	Rate     int              // messages a second that are sent. Default 1300
	Command  func() *exec.Cmd // starts this program again; it calls BeChild
	Log      io.Writer        // gets a line now and then. Default: nobody
	Journal  io.Writer        // gets what the processes log. Default: nobody

	// Skew is by how much the server's clock is ahead of the processes' clocks. It takes the library libfaketime.
	Skew time.Duration
}

// trial is a trial under way.
type trial struct {
	*journal
	options    Options
	room       sync.Mutex // held while the disk is full, and while the server recovers, which it cannot without room
	site       *site
	crew       *crew
	ledger     *ledger
	faults     *faults
	dir        string // of the traces
	background sync.WaitGroup
	holding    atomic.Bool // senders wait
	replayed   int64
}

// Run runs a trial. The result says what was wrong; an error means that there is no result.
func Run(ctx context.Context, o Options) (*Result, error) {
	if o.Scenario == "" {
		o.Scenario = Mixed
	}
	if o.Rate == 0 {
		o.Rate = 1300
	}
	t := &trial{options: o, journal: &journal{to: o.Log, processes: o.Journal}, ledger: newLedger(), faults: newFaults()}
	t.crew = newCrew(t)
	var err error
	if t.dir, err = os.MkdirTemp("", "sqlq-torture-"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(t.dir)
	if t.site, err = newSite(ctx, o.Skew); err != nil {
		return nil, fmt.Errorf("prepare the server: %w", err)
	}
	defer func() { _ = t.site.close() }()
	defer t.crew.close()
	began := time.Now()
	if err := t.run(ctx); err != nil {
		return nil, err
	}
	result, err := t.account(context.WithoutCancel(ctx))
	if err != nil {
		return nil, fmt.Errorf("account: %w", err)
	}
	result.TotalSeconds = seconds(time.Since(began))
	return result, nil
}

func seconds(d time.Duration) float64 {
	return float64(d.Round(100*time.Millisecond)) / float64(time.Second)
}

func (t *trial) run(ctx context.Context) error {
	proxies := t.site.proxies
	if t.options.Scenario != Poison {
		t.crew.add(receiverRole, "receiver-a", nil, 0)
		t.crew.add(receiverRole, "receiver-b", proxies[0], 0)
		t.crew.add(receiverRole, "receiver-c", proxies[1], 0)
		t.crew.add(senderRole, "sender-a", nil, t.options.Rate/3)
		t.crew.add(senderRole, "sender-b", proxies[0], t.options.Rate/3)
		t.crew.add(senderRole, "sender-c", proxies[1], t.options.Rate/3)
	}
	if t.options.Scenario != Calm {
		t.crew.add(poisonRole, "poison-a", nil, 0)
		t.crew.add(poisonRole, "poison-b", nil, 0)
	}
	lanes, end, err := t.lanes(ctx)
	if err != nil {
		return err
	}
	defer end()

	striking, stopStriking := context.WithTimeout(ctx, t.options.Duration)
	defer stopStriking()
	var running sync.WaitGroup
	for _, l := range lanes {
		running.Go(func() { l.run(striking, t.options.Seed) })
	}
	watching, stopWatching := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { t.watch(watching) })
	defer watch.Wait()
	defer stopWatching()
	<-striking.Done()
	running.Wait()
	t.background.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	t.log("the faults are over; %d messages were acknowledged", t.ledger.acknowledged())
	t.crew.retire(senderRole)
	if err := t.drain(ctx); err != nil {
		return err
	}
	t.crew.close()
	t.background.Wait()
	return nil
}

// lanes are the faults of the scenario.
func (t *trial) lanes(ctx context.Context) (lanes []lane, end func(), err error) {
	end = func() {}
	if t.options.Scenario == Calm {
		return nil, end, nil
	}
	p, err := newInsider(ctx, t, "the trial", role, poisonerRun)
	if err != nil {
		return nil, end, err
	}
	end = p.pool.Close
	if t.options.Scenario == Poison {
		return []lane{messageFaults(p, 500*time.Millisecond, 1500*time.Millisecond)}, end, nil
	}
	inside, err := newInsider(ctx, t, "a stranger", strangerRole, strangerRun)
	if err != nil {
		return nil, end, err
	}
	end = func() { p.pool.Close(); inside.pool.Close() }
	if t.options.Skew == 0 {
		t.skip("clocks that differ by hours: that is a trial of its own, see -skew")
	}
	return []lane{processFaults{t}.lane(), networkFaults{t}.lane(), sessionFaults{t}.lane(), administratorFaults{t}.lane(), crashFaults{t}.lane(), stranger{inside}.faults(),
		messageFaults(p, 2*time.Second, 3*time.Second)}, end, nil
}

// places counts the messages that wait, in a queue, delayed or leased.
var places = `SELECT ` + lab.Waiting(queues...)

// waiting returns what places counts; false when the database did not say.
func (t *trial) waiting(ctx context.Context) (n int, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err := t.site.admin.QueryRow(ctx, places).Scan(&n)
	return n, err == nil
}

// watch has the senders wait while the backlog is long, so that the end of the trial is not all draining.
func (t *trial) watch(ctx context.Context) {
	const most, few = 12_000, 6_000
	for began, told := time.Now(), time.Now(); lab.Sleep(ctx, 300*time.Millisecond) == nil; {
		n, ok := t.waiting(ctx)
		if !ok {
			continue
		}
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			t.log("after %v: %d acknowledged, %d waiting", time.Since(began).Round(time.Second), t.ledger.acknowledged(), n)
		}
		if hold := n > most || t.holding.Load() && n > few; hold != t.holding.Load() {
			t.holding.Store(hold)
			for _, p := range t.crew.of(senderRole) {
				p.with(func(pr *process) bool {
					pr.Tell(map[bool]string{true: "hold", false: "go"}[hold])
					return true
				})
			}
		}
	}
}

// patienceWithDrain is longer than it takes an instance to give back leases that it has let go of, because the server
// refused to settle them: it asks itself after a minute.
const patienceWithDrain = 90 * time.Second

// drain waits until nothing waits any more. What failed of a fault, and not because its message says so, is replayed, as
// an operator would; then it must succeed.
func (t *trial) drain(ctx context.Context) error {
	began := time.Now()
	least, since := -1, time.Now()
	for empty := 0; empty < 3; {
		if lab.Sleep(ctx, 100*time.Millisecond) != nil {
			return ctx.Err()
		}
		n, ok := t.waiting(ctx)
		if ok && n == 0 {
			replayed, err := t.replay(ctx)
			if err != nil {
				return err
			}
			if empty++; replayed > 0 {
				empty = 0
			}
			continue
		}
		empty = 0
		if ok && (least < 0 || n < least) {
			least, since = n, time.Now()
		}
		if time.Since(since) > patienceWithDrain {
			t.problem("the queues do not get empty: %d messages wait, and for %v there were not fewer: %s", n, patienceWithDrain, t.remains(ctx))
			t.crew.dump()
			break
		}
	}
	t.log("drained after %v", time.Since(began).Round(time.Millisecond))
	return nil
}

// remains says where what waits does so.
func (t *trial) remains(ctx context.Context) (told string) {
	sql := `SELECT string_agg(line, '; ') FROM (
		SELECT format('%s leased by %s of %s', count(*), instance, queue) FROM sqlq.leased GROUP BY instance, queue UNION ALL
		SELECT format('%s delayed to %s, due %s', count(*), queue, min(due_at)) FROM sqlq.delayed GROUP BY queue`
	for _, q := range queues {
		sql += ` UNION ALL SELECT format('%s in ` + q + `', count(*)) FROM sqlq.q_` + q + ` HAVING count(*) > 0`
	}
	if err := t.site.admin.QueryRow(ctx, sql+`) s (line)`).Scan(&told); err != nil {
		told = err.Error()
	}
	return told
}

// replay moves back what a fault made fail. Poison is left where it is: its neighbours are not to fail at all;
// and so is what is to be handled at most once.
func (t *trial) replay(ctx context.Context) (int64, error) {
	var names []string
	err := t.site.admin.QueryRow(ctx, `SELECT coalesce(array_agg(seq::text), '{}') FROM sqlq.error WHERE queue <> ALL ($1) AND message NOT LIKE '%' || $2 || '%'`,
		[]string{poisonQueue, mostQueue}, errDeed.Error()).Scan(&names)
	if err != nil || len(names) == 0 {
		return 0, err
	}
	n, err := ops.New(t.site.admin, "sqlq").Failed.Replay(ctx, ops.Filter{Names: names}, ops.ReplayOptions{})
	t.replayed += n
	return n, err
}
