package ops

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// What one statement that looks through a queue reads at most.
const (
	lookRows  = 10_000  // to look at
	readRows  = 1_000   // to return
	readBytes = 8 << 20 // of their bodies together
)

// Message is a ready or delayed message.
type Message struct {
	Seq       int64           // place in the queue; of a delayed one, its number
	ID        string          // of the message
	Type      string          // the message type
	SentAt    time.Time       // by the database's clock
	ExpiresAt *time.Time      // nil: never
	Attempt   int             // attempts already made
	Headers   json.RawMessage // a JSON object of strings; nil: none
	Body      []byte          // as the sender encoded it
	DueAt     *time.Time      // when a delayed one becomes ready; nil: it is
	Why       string          // a delayed one waits: delay, because its sender said so, or retry, for its next attempt
	Error     string          // with which the last attempt failed
}

// messageJSON is a ready message without what can be large.
type messageJSON struct {
	Seq       int64      `json:"seq"`
	ID        string     `json:"id"`
	Type      string     `json:"type"`
	SentAt    time.Time  `json:"sent_at"`
	ExpiresAt *time.Time `json:"expires_at"`
	Attempt   int        `json:"attempt"`
}

// MarshalJSON writes a ready message as sqlq queue peek -o json does; one without its body has no headers either. See AppendLine for
// lines that Ready.Import reads.
func (m Message) MarshalJSON() ([]byte, error) {
	short := messageJSON{m.Seq, m.ID, m.Type, timeAsJSON(m.SentAt), optionalTime(m.ExpiresAt), m.Attempt}
	if m.Body == nil {
		return encode(short)
	}
	return encode(struct {
		messageJSON
		Headers json.RawMessage `json:"headers"`
		bodyJSON
	}{short, headersAsJSON(m.Headers), bodyAsJSON(m.Body)})
}

// Looking says how those work that look through a queue. The zero value is good.
type Looking struct {
	// Progress is called now and then.
	// Default: none. Cost: the time of the call.
	Progress func(Progress)
}

func (l Looking) tell(looked, found int64) {
	if l.Progress != nil {
		l.Progress(Progress{Looked: looked, Done: found})
	}
}

// List returns the ready messages of a queue that a filter chooses, without taking them, the oldest first unless the filter
// says otherwise. Messages that a receiver holds at this moment are among them. It keeps all that it returns in memory: give the
// filter a Limit, or use Ready.Each.
func (o Ready) List(ctx context.Context, queue string, f Filter, l Looking) ([]Message, error) {
	var messages []Message
	err := o.Each(ctx, queue, f, l, func(m Message) error {
		messages = append(messages, m)
		return nil
	})
	return messages, err
}

// Each calls do for each ready message of a queue that a filter chooses and that was there when it began, without taking
// it, and ends with do's first error. A queue has one index, by the order of arrival: it looks at every message, in
// statements of 10,000 each, so that none holds vacuum back for long. Messages that are handled meanwhile are not seen.
func (o Ready) Each(ctx context.Context, queue string, f Filter, l Looking, do func(Message) error) error {
	chosen, err := o.chooseReady(ctx, f)
	if err != nil {
		return err
	}
	span, err := o.span(ctx, queue, chosen)
	if err != nil {
		return o.noQueue(ctx, queue, fmt.Errorf("look into queue %q: %w", queue, err))
	}
	span.Bytes, span.Descending = readBytes, f.Order == Newest
	for left, looked, found := int64(f.limit()), int64(0), int64(0); left > found; l.tell(looked, found) {
		span.Look, span.Want = lookRows, int(min(readRows, left-found))
		if f.ChoosesAll() {
			span.Look = span.Want
		}
		messages, at, err := o.store.ReadReady(ctx, o.pool, queue, chosen, span)
		if err != nil {
			return o.noQueue(ctx, queue, fmt.Errorf("look into queue %q: %w", queue, err))
		}
		size := 0
		for _, m := range messages {
			size += len(m.Body)
			if err := do(message(m)); err != nil {
				return err
			}
		}
		looked, found = looked+at.Rows, found+int64(len(messages))
		last := at.Last
		full := len(messages) == span.Want || size >= span.Bytes
		if full {
			last = messages[len(messages)-1].Seq
		}
		if !full && at.Rows < int64(span.Look) {
			l.tell(looked, found)
			return nil
		}
		if span.Descending {
			span.UpTo = last - 1
		} else {
			span.After = last
		}
	}
	return nil
}

// span returns which seqs of a queue a filter can choose: from the lowest that it may have to the last that it has given out.
func (o Ready) span(ctx context.Context, queue string, f query.Filter) (span query.Span, err error) {
	if span.After, err = o.store.SeenLow(ctx, o.pool, queue); err != nil {
		return span, err
	}
	if span.UpTo, err = o.store.LastReady(ctx, o.pool, queue); err != nil {
		return span, err
	}
	if f.Seqs != nil && f.IDs == nil {
		span.After, span.UpTo = max(span.After, slices.Min(f.Seqs)-1), min(span.UpTo, slices.Max(f.Seqs))
	}
	return span, nil
}

// Each calls do for each delayed message of a queue that a filter chooses and that was there when it began, those
// that are due first first, and ends with do's first error. The filter's times are due times. The delayed table has no index by
// queue: it looks at those of all.
func (o Delayed) Each(ctx context.Context, queue string, f Filter, l Looking, do func(Message) error) error {
	chosen, err := f.chosenDelayed()
	if err != nil {
		return err
	}
	if err := o.try(ctx, chosen); err != nil {
		return err
	}
	if err := o.mustExist(ctx, queue); err != nil {
		return err
	}
	upTo, err := o.store.LastDelayed(ctx, o.pool)
	if err != nil {
		return fmt.Errorf("look through the delayed messages: %w", err)
	}
	left, found := int64(f.limit()), int64(0)
	for place := (&query.DelayedKey{DueAt: query.NegativeInfinity}); place != nil; l.tell(0, found) {
		var messages []query.Peeked
		if messages, place, err = o.store.ReadDelayedOf(ctx, o.pool, queue, chosen, *place, upTo, readRows, readBytes); err != nil {
			return fmt.Errorf("look through the delayed messages: %w", err)
		}
		for _, m := range messages {
			if found == left {
				return nil
			}
			if err := do(message(m)); err != nil {
				return err
			}
			found++
		}
	}
	return nil
}

// Count says how many ready messages of a queue a filter chooses, up to its Limit. With nothing to choose by it is
// Queues.List's count, else it looks at every message.
func (o Ready) Count(ctx context.Context, queue string, f Filter, l Looking) (Count, error) {
	limit := int64(f.limit())
	if f.ChoosesAll() {
		q, err := Queues(o).Show(ctx, queue)
		if q.Ready.N >= limit {
			return Count{N: limit}, err
		}
		return q.Ready, err
	}
	chosen, err := o.chooseReady(ctx, f)
	if err != nil {
		return Count{}, err
	}
	span, err := o.span(ctx, queue, chosen)
	if err != nil {
		return Count{}, o.noQueue(ctx, queue, fmt.Errorf("count in queue %q: %w", queue, err))
	}
	return o.countSpan(ctx, queue, chosen, span, limit, l)
}

// countSpan counts the messages of a span that a filter chooses, up to a limit.
func (o Ready) countSpan(ctx context.Context, queue string, chosen query.Filter, span query.Span, limit int64, l Looking) (Count, error) {
	span.Look = lookRows
	for looked, found := int64(0), int64(0); ; l.tell(looked, found) {
		n, at, err := o.store.CountSpan(ctx, o.pool, queue, chosen, span)
		if err != nil {
			return Count{}, o.noQueue(ctx, queue, fmt.Errorf("count in queue %q: %w", queue, err))
		}
		looked, found, span.After = looked+at.Rows, found+n, at.Last
		if at.Rows < int64(span.Look) || found >= limit {
			return Count{N: min(found, limit)}, nil
		}
	}
}

func message(m query.Peeked) Message {
	return Message{Seq: m.Seq, ID: m.ID, Type: m.Type, SentAt: m.SentAt, ExpiresAt: m.ExpiresAt, Attempt: m.Attempt, Headers: m.Headers,
		Body: m.Body, DueAt: m.DueAt, Why: m.Why, Error: m.Error}
}
