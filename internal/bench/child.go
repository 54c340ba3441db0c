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

// child is a receiving process, seen from the process that measures.
type child struct {
	*lab.Process[report]

	mu      sync.Mutex
	samples []sample
	receipt *receipts
	err     error // that it told
}

// sample says how many messages a process had handled at a time, by the clock of this machine.
type sample struct {
	at      time.Time
	handled int64
}

// crew is a number of receiving processes that do the same.
type crew []*child

// hire starts n receiving processes and waits until they are connected. They wait for begin.
func (l *rig) hire(ctx context.Context, n int, s spec) (crew, error) {
	s.URL = l.url
	if s.Concurrency == 0 {
		s.Concurrency = l.Concurrency
	}
	var all crew
	for range n {
		if l.Profile != "" {
			s.Profile = fmt.Sprintf("%s-receiver-%d.pprof", l.Profile, len(l.children)+1)
		}
		c, err := startChild(l.Receiver(), s)
		if err != nil {
			return nil, fmt.Errorf("start a receiving process: %w", err)
		}
		all = append(all, c)
		l.mu.Lock()
		l.children = append(l.children, c)
		l.mu.Unlock()
	}
	return all, all.await(ctx, func() bool { return all.told() == n }, "receiving processes do not get ready")
}

// employ hires n receiving processes and has them receive at once.
func (l *rig) employ(ctx context.Context, n int, s spec) (crew, error) {
	all, err := l.hire(ctx, n, s)
	if err != nil {
		return nil, err
	}
	all.begin()
	return all, nil
}

func startChild(command *exec.Cmd, s spec) (*child, error) {
	c := &child{}
	c.Process = lab.NewProcess(lab.Command[report]{Cmd: command, Spec: s, Said: c.hear})
	return c, c.Start()
}

// hear takes in what the child says.
func (c *child) hear(r report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case r.Error != "":
		c.err = errors.New(r.Error)
	case r.Done != nil:
		c.receipt = r.Done
	default:
		c.samples = append(c.samples, sample{time.Unix(0, r.At), r.Handled})
	}
}

// failure says why the child cannot go on, or has ended; nil: neither.
func (c *child) failure() error {
	c.mu.Lock()
	told := c.err
	c.mu.Unlock()
	if told == nil {
		told = c.Err()
	}
	if told != nil {
		return fmt.Errorf("receiving process: %w", told)
	}
	return nil
}

func (c *child) latest() (sample, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.samples) == 0 {
		return sample{}, false
	}
	return c.samples[len(c.samples)-1], true
}

// first returns the first sample with a message, the zero one if there is none.
func (c *child) first() sample {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.samples {
		if s.handled > 0 {
			return s
		}
	}
	return sample{}
}

// kill ends the child whatever it does.
func (c *child) kill() {
	_ = c.Kill() // it may have ended
	<-c.Ended()
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

// handledAt returns how many messages had been handled at a time and when that was seen, the last sample not after t.
func (c *child) handledAt(t time.Time) sample {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found sample
	for _, s := range c.samples {
		if s.at.After(t) {
			break
		}
		found = s
	}
	return found
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

// awaitHandled waits until so many messages have been handled by all together.
func (l *rig) awaitHandled(ctx context.Context, all crew, n int64) error {
	return all.await(ctx, func() bool {
		l.progress("handled %s of %s", lab.Thousands(min(n, all.handled())), lab.Thousands(n))
		return all.handled() >= n
	}, "receiving stands still")
}

// dismiss has the processes settle what they have in hand and end, and adds up what they tell.
func (l *rig) dismiss(ctx context.Context, all crew) (sum receipts, err error) {
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
			l.note("A receiving process said: %s", warning)
		}
		sum.add(*c.receipt)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.children = slices.DeleteFunc(l.children, func(c *child) bool { return slices.Contains(all, c) })
	return sum, nil
}

// add takes in what another process tells.
func (r *receipts) add(o receipts) {
	r.Handled += o.Handled
	if o.First != 0 && (r.First == 0 || o.First < r.First) {
		r.First = o.First
	}
	r.Last = max(r.Last, o.Last)
	r.Took = append(r.Took, o.Took...)
	r.Slept += o.Slept
	r.PeakMemory = max(r.PeakMemory, o.PeakMemory)
	r.CPU += o.CPU
	r.Order = append(r.Order, o.Order...)
}

// rate is how many messages a second were handled, from the first to the last. What comes before, the first fetch, is
// about as long as what comes after, the last settle.
func (r *receipts) rate() float64 {
	return perSecondOf(r.Handled, time.Duration(r.Last-r.First))
}

// receive has n processes handle what is in their queue, so many messages, and returns what they tell.
func (l *rig) receive(ctx context.Context, n int, s spec, messages int64) (receipts, error) {
	all, err := l.employ(ctx, n, s)
	if err != nil {
		return receipts{}, err
	}
	if err := l.awaitHandled(ctx, all, messages); err != nil {
		return receipts{}, err
	}
	return l.dismiss(ctx, all)
}

// awaitInstances waits until the library knows of so many running processes.
func (l *rig) awaitInstances(ctx context.Context, all crew, n int) error {
	var err error
	waitErr := all.await(ctx, func() bool {
		var running int
		err = l.pool.QueryRow(ctx, `SELECT count(*) FROM `+schema+`.instance WHERE drained_at IS NULL AND crashed_at IS NULL`).Scan(&running)
		return err != nil || running >= n
	}, "endpoints do not start")
	return errors.Join(err, waitErr)
}
