package sqlqtest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sqlq/sqlq/sqlq"
)

// attempts remembers how the last attempt of each message went, to report the messages that a Drain waits for in vain: immediate
// retries are not in the database.
type attempts struct {
	mu   sync.Mutex
	last map[attempted]attempt
}

// attempted identifies a message in a queue; the copies of an event share the id.
type attempted struct {
	id    sqlq.ID
	queue string
}

type attempt struct {
	number int
	began  time.Time
	runs   bool
	err    error // of this attempt; while it runs, of the previous one
}

// observer returns an Observer that records attempts, and passes on what it is told to another; nil: there is none.
func (a *attempts) observer(other *sqlq.Observer) *sqlq.Observer {
	var o sqlq.Observer
	if other != nil {
		o = *other
	}
	begun, decided := o.Begun, o.Decided
	o.Begun = func(ctx context.Context, at sqlq.ObservedAttempt) context.Context {
		a.begin(attempted{at.ID, at.Endpoint}, at.Attempt)
		if begun == nil {
			return ctx
		}
		return begun(ctx, at)
	}
	o.Decided = func(ctx context.Context, at sqlq.ObservedAttempt) {
		a.end(attempted{at.ID, at.Endpoint}, at.Err)
		if decided != nil {
			decided(ctx, at)
		}
	}
	return &o
}

func (a *attempts) begin(key attempted, number int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last == nil {
		a.last = map[attempted]attempt{}
	}
	a.last[key] = attempt{number, time.Now(), true, a.last[key].err}
}

// end forgets a message that succeeds, and leaves one alone whose handler was not called.
func (a *attempts) end(key attempted, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	this, known := a.last[key]
	if !known {
		return
	}
	this.runs, this.err = false, err
	if a.last[key] = this; err == nil {
		delete(a.last, key)
	}
}

// attemptsOf returns "1 attempt", "2 attempts" and so on.
func attemptsOf(n int) string {
	if n == 1 {
		return "1 attempt"
	}
	return fmt.Sprintf("%d attempts", n)
}

// of describes the last attempt of a message.
func (a *attempts) of(id sqlq.ID, queue string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	last, known := a.last[attempted{id, queue}]
	switch {
	case !known:
		return "no attempt was seen"
	case !last.runs && isGivenBack(last.err):
		return fmt.Sprintf("attempt %d gave it back: %v", last.number, last.err)
	case !last.runs:
		return fmt.Sprintf("attempt %d failed: %v", last.number, last.err)
	}
	text := fmt.Sprintf("attempt %d has been running for %v", last.number, time.Since(last.began).Round(time.Millisecond))
	if last.err != nil {
		text += fmt.Sprintf(", the previous one failed: %v", last.err)
	}
	return text
}
