package bench

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/sqlq/sqlq/internal/lab"
)

// receivers is the receiving processes of a run: it starts and ends them.
type receivers struct {
	*journal
	db          *database
	command     func() *exec.Cmd
	concurrency int    // of those that are not told theirs
	profile     string // begins the names of the files of their CPU profiles; "": none

	mu       sync.Mutex
	children []*child // that run, or may do so
}

// crew is a number of receiving processes that do the same.
type crew []*child

// kill ends all of them, whatever they do.
func (r *receivers) kill() {
	for _, c := range r.children {
		c.kill()
	}
}

// hire starts n receiving processes and waits until they are connected. They wait for begin.
func (r *receivers) hire(ctx context.Context, n int, s spec) (crew, error) {
	s.URL = r.db.url
	if s.Concurrency == 0 {
		s.Concurrency = r.concurrency
	}
	var all crew
	for range n {
		if r.profile != "" {
			s.Profile = fmt.Sprintf("%s-receiver-%d.pprof", r.profile, len(r.children)+1)
		}
		c, err := startChild(r.command(), s)
		if err != nil {
			return nil, fmt.Errorf("start a receiving process: %w", err)
		}
		all = append(all, c)
		r.mu.Lock()
		r.children = append(r.children, c)
		r.mu.Unlock()
	}
	return all, all.await(ctx, func() bool { return all.told() == n }, "receiving processes do not get ready")
}

// employ hires n receiving processes and has them receive at once.
func (r *receivers) employ(ctx context.Context, n int, s spec) (crew, error) {
	all, err := r.hire(ctx, n, s)
	if err != nil {
		return nil, err
	}
	all.begin()
	return all, nil
}

// awaitHandled waits until so many messages have been handled by all together.
func (r *receivers) awaitHandled(ctx context.Context, all crew, n int64) error {
	return all.await(ctx, func() bool {
		r.progress("handled %s of %s", lab.Thousands(min(n, all.handled())), lab.Thousands(n))
		return all.handled() >= n
	}, "receiving stands still")
}

// dismiss has the processes settle what they have in hand and end, and adds up what they tell.
func (r *receivers) dismiss(ctx context.Context, all crew) (sum receipts, err error) {
	for _, c := range all {
		c.Dismiss()
	}
	late := time.After(patience)
	for _, c := range all {
		select {
		case <-c.Ended():
		case <-ctx.Done():
			return sum, ctx.Err()
		case <-late:
			return sum, errors.New("a receiving process does not end")
		}
		if err := c.failure(); err != nil {
			return sum, err
		}
		if c.receipt == nil {
			return sum, errors.New("a receiving process ended without a receipt")
		}
		if warning := c.Log().First(); warning != "" {
			r.note("A receiving process said: %s", warning)
		}
		sum.add(*c.receipt)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.children = slices.DeleteFunc(r.children, func(c *child) bool { return slices.Contains(all, c) })
	return sum, nil
}

// receive has n processes handle what is in their queue, so many messages, and returns what they tell.
func (r *receivers) receive(ctx context.Context, n int, s spec, messages int64) (receipts, error) {
	all, err := r.employ(ctx, n, s)
	if err != nil {
		return receipts{}, err
	}
	if err := r.awaitHandled(ctx, all, messages); err != nil {
		return receipts{}, err
	}
	return r.dismiss(ctx, all)
}

// awaitInstances waits until the library knows of so many running processes.
func (r *receivers) awaitInstances(ctx context.Context, all crew, n int) error {
	var err error
	waitErr := all.await(ctx, func() bool {
		var running int
		err = r.db.pool.QueryRow(ctx, `SELECT count(*) FROM `+schema+`.instance WHERE drained_at IS NULL AND crashed_at IS NULL`).Scan(&running)
		return err != nil || running >= n
	}, "endpoints do not start")
	return errors.Join(err, waitErr)
}

// begin has the processes receive.
func (all crew) begin() {
	for _, c := range all {
		c.Tell(begin)
	}
}

// told counts the processes that have said something.
func (all crew) told() (n int) {
	for _, c := range all {
		if _, ok := c.latest(); ok {
			n++
		}
	}
	return n
}

// said counts what the processes have said, all together.
func (all crew) said() (n int) {
	for _, c := range all {
		c.mu.Lock()
		n += len(c.samples)
		c.mu.Unlock()
	}
	return n
}

// handled counts the messages that have been handled by all together, as far as is known.
func (all crew) handled() (n int64) {
	for _, c := range all {
		s, _ := c.latest()
		n += s.handled
	}
	return n
}

// patience is how long nothing may happen before a benchmark gives up: far longer than anything takes.
const patience = 60 * time.Second

// await waits until something holds, a process fails, or nothing has been handled for a long time.
func (all crew) await(ctx context.Context, holds func() bool, otherwise string) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	seen, since := int64(-1), time.Now()
	for !holds() {
		for _, c := range all {
			if err := c.failure(); err != nil && ctx.Err() == nil {
				return err
			}
		}
		if n := all.handled(); n != seen {
			seen, since = n, time.Now()
		}
		if time.Since(since) > patience {
			return fmt.Errorf("%s; %d messages had been handled", otherwise, seen)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
