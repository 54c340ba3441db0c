package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

const (
	delayedChunk = 5000 // how many delayed messages one statement looks at
	delayedBatch = 1000 // and how many one transaction of Cancel or Reschedule
)

// Why is the reason for which a message is delayed.
type Why string

const (
	WhyDelay Why = "delay" // its sender asked for it
	WhyRetry Why = "retry" // its last attempt failed, or its handler gave it back: Error says why
)

// DelayedMessage is a message that waits for its time. What Delayed.List returns has no Headers and Body, which can be large;
// Delayed.Show fills in all.
type DelayedMessage struct {
	Number    int64           // by which it can be named
	ID        string          // of the message; copies of an event share it
	Queue     string          // it moves there when it is due
	Type      string          // the message type
	Why       Why             // WhyDelay or WhyRetry
	DueAt     time.Time       // when it moves to its queue
	DueIn     time.Duration   // by the clock of the database; negative: it is overdue
	SentAt    time.Time       // by the database's clock
	ExpiresAt *time.Time      // nil: never
	Attempts  int             // already made
	Error     string          // of the last attempt; "": none failed
	Headers   json.RawMessage // a JSON object of strings; nil: none
	Body      []byte          // as the sender encoded it
}

// delayedJSON is a delayed message without what can be large.
type delayedJSON struct {
	Number    int64      `json:"number"`
	ID        string     `json:"id"`
	Queue     string     `json:"queue"`
	Type      string     `json:"type"`
	Why       Why        `json:"why"`
	DueAt     time.Time  `json:"due_at"`
	DueIn     float64    `json:"due_in_seconds"`
	SentAt    time.Time  `json:"sent_at"`
	ExpiresAt *time.Time `json:"expires_at"`
	Attempts  int        `json:"attempts"`
	Error     string     `json:"error,omitempty"`
}

// MarshalJSON writes the message as sqlq delayed ls -o json does; one that has its body, with headers and body, as sqlq delayed show
// -o json.
func (m DelayedMessage) MarshalJSON() ([]byte, error) {
	short := delayedJSON{m.Number, m.ID, m.Queue, m.Type, m.Why, timeAsJSON(m.DueAt), m.DueIn.Seconds(), timeAsJSON(m.SentAt),
		optionalTime(m.ExpiresAt), m.Attempts, m.Error}
	if m.Body == nil {
		return encode(short)
	}
	return encode(struct {
		delayedJSON
		Headers json.RawMessage `json:"headers"`
		bodyJSON
	}{short, headersAsJSON(m.Headers), bodyAsJSON(m.Body)})
}

// List returns the delayed messages that a filter chooses, in the order of their due times, or the latest first if its Order is Newest.
// Only times have an index: any other condition is checked on one message after the other, in chunks, so that a filter that
// matches few of very many is slow. Names are searched at about 0.1 s per million messages.
func (o Delayed) List(ctx context.Context, f Filter) ([]DelayedMessage, error) {
	chosen, err := o.delayedFilter(ctx, f)
	if err != nil {
		return nil, err
	}
	var list []DelayedMessage
	err = o.eachDelayed(ctx, f, chosen, 0, func(rows []query.DelayedRow) error {
		for _, row := range rows {
			list = append(list, delayedMessage(row))
		}
		return nil
	})
	if err == nil && len(list) == 0 {
		err = o.checkQueue(ctx, f.Queue)
	}
	return list, err
}

// Show returns the delayed message of that number or id, with all its fields. An id of which several copies are
// delayed, as those of an event may be, is an error that lists their numbers; none is a *NoDelayedError.
func (o Delayed) Show(ctx context.Context, name string) (DelayedMessage, error) {
	f := Filter{Names: []string{name}, Limit: 10}
	chosen, err := o.delayedFilter(ctx, f)
	if err != nil {
		return DelayedMessage{}, err
	}
	var found []query.DelayedRow
	if err := o.eachDelayed(ctx, f, chosen, 0, func(rows []query.DelayedRow) error { found = append(found, rows...); return nil }); err != nil {
		return DelayedMessage{}, err
	}
	if len(found) == 0 {
		return DelayedMessage{}, &NoDelayedError{Missing: []string{name}}
	}
	if len(found) > 1 {
		var copies []string
		for _, row := range found {
			copies = append(copies, fmt.Sprintf("%d (%s)", row.Seq, row.Queue))
		}
		return DelayedMessage{}, fmt.Errorf("%d delayed messages have the id %s; name one by its number: %s", len(found), name, strings.Join(copies, ", "))
	}
	err = o.store.FillDelayed(ctx, o.pool, &found[0])
	if errors.Is(err, pgx.ErrNoRows) {
		return DelayedMessage{}, &NoDelayedError{Missing: []string{name}}
	}
	if err != nil {
		return DelayedMessage{}, fmt.Errorf("read delayed message %s: %w", name, err)
	}
	return delayedMessage(found[0]), nil
}

// NoDelayedError is returned when delayed messages are named, by number or id, that are not there: they were cancelled, or
// have moved to their queues.
type NoDelayedError struct {
	Missing []string // the numbers and ids that were named
}

// Error says what happened, where, and what to do about it.
func (e *NoDelayedError) Error() string {
	return "not among the delayed (see: sqlq delayed ls): " + strings.Join(e.Missing, ", ")
}

// Count returns the number of delayed messages that a filter chooses, more: there are more than CountLimit, which is then the number,
// and up to sample of them. Names that do not exist are a *NoDelayedError, together with the other results.
func (o Delayed) Count(ctx context.Context, f Filter, sample int) (n int64, more bool, first []DelayedMessage, err error) {
	if f.Limit <= 0 || f.Limit > CountLimit {
		f.Limit, more = CountLimit, true
	}
	list, err := o.List(ctx, f)
	if err != nil {
		return 0, false, nil, err
	}
	return int64(len(list)), more && len(list) == CountLimit, list[:min(sample, len(list))], missingDelayed(f, list)
}

// missingDelayed returns a *NoDelayedError for the names of a filter that are not in a list.
func missingDelayed(f Filter, list []DelayedMessage) error {
	there := map[string]bool{}
	for _, m := range list {
		there[fmt.Sprint(m.Number)], there[m.ID] = true, true
	}
	var lacking NoDelayedError
	for _, name := range f.Names {
		seq, id, _ := parseName(name)
		if id == "" {
			id = fmt.Sprint(seq)
		}
		if !there[id] && len(list) < f.limit() {
			lacking.Missing = append(lacking.Missing, name)
		}
	}
	if lacking.Missing == nil {
		return nil
	}
	return &lacking
}

// eachDelayed hands the delayed messages that a filter chooses to each, in its order and up to its limit, chunk by chunk. Those
// with numbers above upTo are left out; 0: none are.
func (o Delayed) eachDelayed(ctx context.Context, f Filter, chosen query.Filter, upTo int64, each func([]query.DelayedRow) error) error {
	stretch := query.DelayedStretch{Newest: f.Order == Newest, UpTo: upTo}
	for left := f.limit(); left > 0; {
		rows, next, err := o.store.ListDelayed(ctx, o.pool, stretch, chosen, delayedChunk, min(left, delayedChunk))
		if err != nil {
			return fmt.Errorf("list delayed messages: %w", err)
		}
		if err := each(rows); err != nil || next == nil {
			return err
		}
		stretch.From = next
		left -= len(rows)
	}
	return nil
}

// delayedFilter translates the filter for queries on delayed messages, after the database has checked its regular expression and
// jsonpath.
func (o Delayed) delayedFilter(ctx context.Context, f Filter) (query.Filter, error) {
	if err := f.checkNames("delayed"); err != nil {
		return query.Filter{}, err
	}
	chosen, err := f.chosenDelayed()
	if err != nil {
		return query.Filter{}, err
	}
	if err := o.try(ctx, chosen); err != nil || len(f.Names) == 0 {
		return chosen, err
	}
	if chosen.Keys, err = o.store.FindDelayed(ctx, o.pool, chosen.Seqs, chosen.IDs); err != nil {
		return chosen, fmt.Errorf("look for the named messages: %w", err)
	}
	return chosen, nil
}

func delayedMessage(d query.DelayedRow) DelayedMessage {
	m := DelayedMessage{Number: d.Seq, ID: d.ID, Queue: d.Queue, Type: d.Type, Why: Why(d.Why), DueAt: d.DueAt, DueIn: d.DueIn, SentAt: d.SentAt,
		ExpiresAt: d.ExpiresAt, Attempts: d.Attempt, Headers: d.Headers, Body: d.Body}
	if d.Error != nil {
		m.Error = *d.Error
	}
	return m
}
