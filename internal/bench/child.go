package bench

import (
	"errors"
	"fmt"
	"os/exec"
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
