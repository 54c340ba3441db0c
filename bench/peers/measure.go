package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlq/sqlq/internal/lab"
)

// row is one of the measured quantities.
type row string

const (
	rowDrain    row = "drain"    // messages/s
	rowSend16   row = "send16"   // messages/s
	rowSendMany row = "sendmany" // messages/s
	rowWAL      row = "wal"      // bytes a message
	rowP50      row = "p50_ms"
	rowP99      row = "p99_ms"
)

var allRows = []row{rowDrain, rowSend16, rowSendMany, rowWAL, rowP50, rowP99}

// results contains what was measured: by subject and row, a value per round.
type results map[string]map[row]lab.Series

func (r results) add(s subject, what row, value float64) {
	if !s.takes(what) {
		return
	}
	if r[s.key] == nil {
		r[s.key] = map[row]lab.Series{}
	}
	r[s.key][what] = append(r[s.key][what], value)
}

// A pass measures one or more rows of one subject, on an empty database.
type pass struct {
	name string
	rows []row
	run  func(l *rig, ctx context.Context, s subject, sys system, url string, into results) error
}

var passes = []pass{
	{"send many and drain", []row{rowSendMany, rowDrain, rowWAL}, (*rig).backlog},
	{"send from 16", []row{rowSend16}, (*rig).senders},
	{"latency", []row{rowP50, rowP99}, (*rig).latency},
}

// run measures the subjects in rounds: each pass measures all of them before the next begins. A system that fails is
// left out from then on, and has no figures.
func (l *rig) run(ctx context.Context, all []subject) (into results, failed []absent, err error) {
	into = results{}
	out := map[string]bool{}
	for round := range l.size.Rounds {
		for _, p := range passes {
			for _, s := range all {
				if !s.takes(p.rows...) || out[s.key] {
					continue
				}
				l.say("round %d of %d: %s: %s", round+1, l.size.Rounds, p.name, s.title)
				err := l.with(ctx, s, func(ctx context.Context, sys system, url string) error {
					return p.run(l, ctx, s, sys, url, into)
				})
				if ctx.Err() != nil {
					return nil, nil, context.Cause(ctx)
				}
				if err != nil {
					out[s.key] = true
					delete(into, s.key)
					failed = append(failed, l.absent(s, fmt.Errorf("%s: %w", p.name, err)))
				}
			}
		}
	}
	return into, failed, nil
}

// backlog sends a backlog in batches and then drains it. The drain counts from the first handler call to the
// last, which leaves out the time that a receiver takes to start, and to settle what was handled at the end.
func (l *rig) backlog(ctx context.Context, s subject, sys system, url string, into results) error {
	n := l.size.Backlog
	first := l.ids(n)
	all := orders(first, n)
	wal := [4]int64{}
	var err error
	if wal[0], err = l.wal(ctx); err != nil {
		return err
	}
	began := time.Now()
	for batch := range slices.Chunk(all, l.size.Batch) {
		if err := sys.sendMany(ctx, batch); err != nil {
			return fmt.Errorf("send many: %w", err)
		}
	}
	into.add(s, rowSendMany, float64(n)/time.Since(began).Seconds())
	if !s.takes(rowDrain) {
		return nil
	}
	if wal[1], err = l.wal(ctx); err != nil {
		return err
	}
	// As autovacuum would have done by then, so that the planner knows the table.
	if err := lab.Execute(ctx, url, `ANALYZE`); err != nil {
		return err
	}
	if wal[2], err = l.wal(ctx); err != nil {
		return err
	}
	in := newInbox(first, n)
	whole, err := l.receive(ctx, sys, in, l.size.DrainFor)
	if err != nil {
		return err
	}
	if wal[3], err = l.wal(ctx); err != nil {
		return err
	}
	handled, took := in.span()
	if handled < 2 {
		return fmt.Errorf("%d of %d orders were handled within %v", handled, n, l.size.DrainFor)
	}
	into.add(s, rowDrain, float64(handled)/took.Seconds())
	into.add(s, rowWAL, float64(wal[1]-wal[0])/float64(n)+float64(wal[3]-wal[2])/float64(handled))
	if whole {
		return l.nothingLeft(ctx, sys)
	}
	return nil
}

// receive runs the system's receiver until the inbox is full or the time is over, and stops it. It reports whether the inbox
// is full.
func (l *rig) receive(ctx context.Context, sys system, in *inbox, within time.Duration) (full bool, err error) {
	stop, err := sys.receive(ctx, in)
	if err != nil {
		return false, fmt.Errorf("receive: %w", err)
	}
	full, err = in.wait(ctx, within)
	return full, errors.Join(err, l.stop(ctx, stop), in.check())
}

func (l *rig) stop(ctx context.Context, stop func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	return stop(ctx)
}

// wait waits until every order was handled, but not longer than within.
func (in *inbox) wait(ctx context.Context, within time.Duration) (full bool, err error) {
	late := time.NewTimer(within)
	defer late.Stop()
	select {
	case <-in.full:
		return true, nil
	case <-in.failed:
		return false, in.err
	case <-ctx.Done():
		return false, context.Cause(ctx)
	case <-late.C:
		return false, nil
	}
}

// nothingLeft returns an error if a system whose receiver has ended still has orders, although all were handled.
func (l *rig) nothingLeft(ctx context.Context, sys system) error {
	left, err := sys.left(ctx)
	if err != nil {
		return fmt.Errorf("count what is left: %w", err)
	}
	if left > 0 {
		return fmt.Errorf("%d orders are left, although all were handled", left)
	}
	return nil
}

const (
	senders   = 16
	warmSends = 5 // of each sender, before the clock starts
)

// senders sends single orders from 16 goroutines, without a receiver.
func (l *rig) senders(ctx context.Context, s subject, sys system, _ string, into results) error {
	rate, _, _, err := l.sendFrom16(ctx, sys)
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	into.add(s, rowSend16, rate)
	return nil
}

// sendFrom16 returns the rate, the id of the first order sent, and how many were sent in all.
func (l *rig) sendFrom16(ctx context.Context, sys system) (rate float64, first int64, n int, err error) {
	const warm = senders * warmSends
	first = l.ids(warm + l.size.SendMost)
	var called atomic.Int64 // how many calls, which determines the ids
	sendOne := func() (more bool, err error) {
		i := called.Add(1)
		if i > int64(warm+l.size.SendMost) {
			called.Add(-1)
			return false, nil
		}
		return true, sys.send(ctx, newOrder(first+i-1))
	}
	err = lab.InParallel(senders, func(int) error {
		for range warmSends {
			if _, err := sendOne(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, 0, 0, err
	}
	began := time.Now()
	err = lab.InParallel(senders, func(int) error {
		for time.Since(began) < l.size.SendFor {
			if more, err := sendOne(); err != nil || !more {
				return err
			}
		}
		return nil
	})
	took := time.Since(began)
	n = int(called.Load())
	return float64(n-warm) / took.Seconds(), first, n, err
}

// latency sends single orders at a steady rate to a receiver that has nothing else to do, and measures the time from the
// call of send to the handler. The pauses vary, so that they are not in step with any polling.
func (l *rig) latency(ctx context.Context, s subject, sys system, _ string, into results) error {
	times, err := l.latencies(ctx, sys, max(l.size.LatencyFor, 2*s.poll))
	if err != nil {
		return err
	}
	slices.Sort(times)
	into.add(s, rowP50, lab.Milliseconds(lab.Percentile(times, 50)))
	into.add(s, rowP99, lab.Milliseconds(lab.Percentile(times, 99)))
	return nil
}

const (
	warmOrders    = 20
	arrivesWithin = 30 * time.Second
)

func (l *rig) latencies(ctx context.Context, sys system, d time.Duration) (times []time.Duration, err error) {
	n := max(10, int(l.size.Rate*d.Seconds()))
	in, sentAt := newInbox(l.ids(warmOrders+n), warmOrders+n), make([]time.Time, warmOrders+n)
	stop, err := sys.receive(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	stopped := false
	defer func() {
		if !stopped {
			err = errors.Join(err, l.stop(ctx, stop))
		}
	}()
	for i := range warmOrders {
		if err := sys.send(ctx, newOrder(in.first+int64(i))); err != nil {
			return nil, fmt.Errorf("send: %w", err)
		}
	}
	if err := in.waitFor(ctx, warmOrders, arrivesWithin); err != nil {
		return nil, err
	}
	if err := lab.Sleep(ctx, 300*time.Millisecond); err != nil {
		return nil, err
	}

	random := rand.New(rand.NewPCG(1, 2))
	var sending sync.WaitGroup
	errs := make([]error, n)
	due := time.Now()
	for i := range n {
		due = due.Add(time.Duration((0.5 + random.Float64()) / l.size.Rate * float64(time.Second)))
		if err := lab.SleepUntil(ctx, due); err != nil {
			errs[i] = err
			break
		}
		sending.Go(func() {
			at := warmOrders + i
			sentAt[at] = time.Now()
			errs[i] = sys.send(ctx, newOrder(in.first+int64(at)))
		})
	}
	sending.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	full, err := in.wait(ctx, arrivesWithin)
	if err != nil {
		return nil, err
	}
	stopped = true
	if err := errors.Join(l.stop(ctx, stop), in.check()); err != nil {
		return nil, err
	}
	if !full {
		return nil, fmt.Errorf("%d of %d orders did not arrive within %v", int64(n+warmOrders)-in.distinct.Load(), n+warmOrders, arrivesWithin)
	}
	for i := warmOrders; i < warmOrders+n; i++ {
		times = append(times, time.Duration(in.at[i].Load()-sentAt[i].UnixNano()))
	}
	return times, l.nothingLeft(ctx, sys)
}

// waitFor waits until n orders were handled.
func (in *inbox) waitFor(ctx context.Context, n int64, within time.Duration) error {
	for late := time.Now().Add(within); in.distinct.Load() < n; {
		if time.Now().After(late) {
			return fmt.Errorf("%d of %d orders arrived within %v", in.distinct.Load(), n, within)
		}
		select {
		case <-in.failed:
			return in.err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}
