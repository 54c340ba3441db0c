package sqlqtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sqlq/sqlq/sqlq"
)

// attempts remembers of each message how its last attempt went, for those that a Drain waits for in vain: retries at once
// are not in the database.
type attempts struct {
	mu   sync.Mutex
	last map[attempted]attempt
}

// attempted is a message in a queue; the copies of an event share the id.
type attempted struct {
	id    sqlq.ID
	queue string
}

type attempt struct {
	number int
	began  time.Time
	err    error // nil: it runs
}

// note is the HandleMiddleware that remembers. What succeeds is forgotten.
func (a *attempts) note(next sqlq.HandleFunc) sqlq.HandleFunc {
	return func(ctx context.Context, d *sqlq.Incoming) error {
		key, this := attempted{d.ID, d.Endpoint}, attempt{number: d.Attempt, began: time.Now()}
		a.set(key, &this)
		err := errors.New("the handler panicked, or ended its goroutine")
		defer func() {
			if this.err = err; err == nil {
				a.set(key, nil)
				return
			}
			a.set(key, &this)
		}()
		err = next(ctx, d)
		return err
	}
}

func (a *attempts) set(key attempted, to *attempt) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if to == nil {
		delete(a.last, key)
		return
	}
	if a.last == nil {
		a.last = map[attempted]attempt{}
	}
	a.last[key] = *to
}

// of says how the last attempt for a message went; "" when nothing is known.
func (a *attempts) of(id sqlq.ID, queue string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	last, known := a.last[attempted{id, queue}]
	switch {
	case !known:
		return ""
	case last.err == nil:
		return fmt.Sprintf("attempt %d has been running for %v", last.number, time.Since(last.began).Round(time.Millisecond))
	}
	return fmt.Sprintf("attempt %d failed: %v", last.number, last.err)
}
