package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// FailedMessage is a message in the error table. What ListFailed returns has no Headers, Body, Chain and Stack, which can
// be large; ShowFailed fills in all.
type FailedMessage struct {
	Number        int64
	ID            string
	Status        Status
	Queue         string // it came from there, and goes back there when replayed
	Endpoint      string
	Host          string // of the last attempt
	Type          string
	Attempts      int // since it was sent or last replayed
	Replays       int // before it failed this time
	SentAt        time.Time
	ExpiresAt     *time.Time // end of its time to live, which does not end its stay here; nil: never
	FirstFailedAt time.Time
	FailedAt      time.Time
	ArchivedAt    *time.Time
	ErrorType     string // Go type of the innermost error, or the kind of failure
	Error         string
	Group         string          // equal for failures of one fault
	Headers       json.RawMessage // a JSON object of strings; nil: none
	Body          []byte
	Chain         []string // the wrapped errors, outermost first
	Stack         string   // of a panic; "": it was not one
}

// ListFailed returns the failed messages that a filter chooses, the newest first. Naming a queue that neither exists nor
// has failed messages is a *NoQueueError.
func (o *Ops) ListFailed(ctx context.Context, f Filter) ([]FailedMessage, error) {
	chosen, err := f.chosen()
	if err != nil {
		return nil, err
	}
	list, err := o.store.ListFailed(ctx, o.pool, chosen, f.limit())
	if err != nil {
		return nil, fmt.Errorf("list failed messages: %w", err)
	}
	if len(list) == 0 {
		return nil, o.checkQueue(ctx, f.Queue)
	}
	failed := make([]FailedMessage, len(list))
	for i, m := range list {
		failed[i] = failedMessage(m)
	}
	return failed, nil
}

// ShowFailed returns the failed or archived message of that number or id, with all its fields. An id of which several
// copies failed, as those of an event may, is an error that lists their numbers; none is a *NoFailedError.
func (o *Ops) ShowFailed(ctx context.Context, name string) (FailedMessage, error) {
	chosen, err := Filter{Names: []string{name}, Status: StatusAny}.chosen()
	if err != nil {
		return FailedMessage{}, err
	}
	found, err := o.store.ListFailed(ctx, o.pool, chosen, 10)
	if err != nil {
		return FailedMessage{}, fmt.Errorf("look for failed message %s: %w", name, err)
	}
	switch len(found) {
	case 0:
		return FailedMessage{}, &NoFailedError{Missing: []string{name}}
	case 1:
	default:
		text := ""
		for _, m := range found {
			text += fmt.Sprintf(" %d (%s),", m.Seq, m.Queue)
		}
		return FailedMessage{}, fmt.Errorf("%d failed messages have the id %s; name one by its number:%s", len(found), name, text[:len(text)-1])
	}
	m, err := o.store.ReadFailed(ctx, o.pool, found[0].Seq)
	if errors.Is(err, pgx.ErrNoRows) {
		return FailedMessage{}, &NoFailedError{Missing: []string{name}}
	}
	if err != nil {
		return FailedMessage{}, fmt.Errorf("read failed message %s: %w", name, err)
	}
	return failedMessage(m), nil
}

// checkQueue returns a *NoQueueError for a queue that neither exists nor has anything in the error table: it is mistyped.
func (o *Ops) checkQueue(ctx context.Context, queue string) error {
	if queue == "" {
		return nil
	}
	known, err := o.store.QueueExists(ctx, o.pool, queue)
	if err == nil && !known {
		known, err = o.store.AnyFailed(ctx, o.pool, store.Filter{Queue: queue}, 0, math.MaxInt64)
	}
	if err != nil {
		return fmt.Errorf("look for queue %q: %w", queue, err)
	}
	if known {
		return nil
	}
	return o.unknownQueue(ctx, queue)
}

func failedMessage(m store.Failed) FailedMessage {
	f := FailedMessage{
		Number: m.Seq, ID: m.ID, Status: Status(m.Status), Queue: m.Queue, Endpoint: m.Endpoint, Host: m.Host, Type: m.Type,
		Attempts: m.Attempts, Replays: m.Replays, SentAt: m.SentAt, ExpiresAt: m.ExpiresAt, FirstFailedAt: m.FirstFailedAt,
		FailedAt: m.FailedAt, ArchivedAt: m.ArchivedAt, ErrorType: m.ErrorType, Error: m.Message, Group: m.Fingerprint,
		Headers: m.Headers, Body: m.Body, Chain: m.Chain,
	}
	if m.Stack != nil {
		f.Stack = *m.Stack
	}
	return f
}
