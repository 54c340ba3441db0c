package sqlqtest

import (
	"context"
	"errors"
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

// note is the HandleMiddleware that records attempts. It forgets a message that succeeds.
func (a *attempts) note(next sqlq.HandleFunc) sqlq.HandleFunc {
	return func(ctx context.Context, d *sqlq.Incoming) error {
		key := attempted{d.ID, d.Endpoint}
		a.begin(key, d.Attempt)
		err := errors.New("the handler panicked, or ended its goroutine")
		defer func() { a.end(key, err) }()
		err = next(ctx, d)
		return err
	}
}

func (a *attempts) begin(key attempted, number int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last == nil {
		a.last = map[attempted]attempt{}
	}
	a.last[key] = attempt{number, time.Now(), true, a.last[key].err}
}

func (a *attempts) end(key attempted, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	this := a.last[key]
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
