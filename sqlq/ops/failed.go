package ops

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// FailedMessage is a message in the error table. Failed.List leaves out Headers, Body, Chain and Stack, which can be large;
// Failed.Show fills them in.
type FailedMessage struct {
	Number        int64           // by which it can be named
	ID            string          // of the message
	Status        Status          // StatusFailed or StatusArchived
	Queue         string          // it came from there, and goes back there when replayed
	Endpoint      string          // whose handler failed
	Host          string          // of the last attempt
	Type          string          // the message type
	Attempts      int             // since it was sent or last replayed
	Replays       int             // before it failed this time
	SentAt        time.Time       // by the database's clock
	ExpiresAt     *time.Time      // end of its time to live, which does not end its stay here; nil: never
	FirstFailedAt time.Time       // when its first attempt failed
	FailedAt      time.Time       // when its last attempt failed
	ArchivedAt    *time.Time      // nil: it is not archived
	ErrorType     string          // Go type of the innermost error, or the kind of failure
	Error         string          // the text of the error
	Group         string          // equal for failures of one fault
	Headers       json.RawMessage // a JSON object of strings; nil: none
	Body          []byte          // as the sender encoded it
	Chain         []string        // the wrapped errors, outermost first
	Stack         string          // of a panic; "": it was not one
}

// failedJSON is a failed message without what can be large.
type failedJSON struct {
	Number        int64      `json:"number"`
	ID            string     `json:"id"`
	Status        Status     `json:"status"`
	Queue         string     `json:"queue"`
	Endpoint      string     `json:"endpoint"`
	Host          string     `json:"host"`
	Type          string     `json:"type"`
	Attempts      int        `json:"attempts"`
	Replays       int        `json:"replays"`
	SentAt        time.Time  `json:"sent_at"`
	ExpiresAt     *time.Time `json:"expires_at"`
	FirstFailedAt time.Time  `json:"first_failed_at"`
	FailedAt      time.Time  `json:"failed_at"`
	ArchivedAt    *time.Time `json:"archived_at"`
	ErrorType     string     `json:"error_type"`
	Error         string     `json:"error"`
	Group         string     `json:"group"`
}

// wholeFailedJSON is a failed message with all that was kept of it.
type wholeFailedJSON struct {
	failedJSON
	Headers json.RawMessage `json:"headers"`
	Chain   []string        `json:"chain"`
	Stack   string          `json:"stack,omitempty"`
	bodyJSON
}

func (m FailedMessage) inShort() failedJSON {
	return failedJSON{m.Number, m.ID, m.Status, m.Queue, m.Endpoint, m.Host, m.Type, m.Attempts, m.Replays, timeAsJSON(m.SentAt),
		optionalTime(m.ExpiresAt), timeAsJSON(m.FirstFailedAt), timeAsJSON(m.FailedAt), optionalTime(m.ArchivedAt), m.ErrorType, m.Error, m.Group}
}

func (m FailedMessage) whole() wholeFailedJSON {
	return wholeFailedJSON{m.inShort(), headersAsJSON(m.Headers), m.Chain, m.Stack, bodyAsJSON(m.Body)}
}

// MarshalJSON writes the message as sqlq error ls -o json does; one that has its body, with headers, chain, stack and body, as a line
// of sqlq error export, which Ready.Import reads.
func (m FailedMessage) MarshalJSON() ([]byte, error) {
	if m.Body == nil {
		return encode(m.inShort())
	}
	return encode(m.whole())
}

// FailedDetail is a failed message as Failed.Show returns it, with what operators did to it, as Ops.History does.
type FailedDetail struct {
	FailedMessage
	History []Past // the first thing first
}

// MarshalJSON writes the message and its history as sqlq error show -o json does.
func (d FailedDetail) MarshalJSON() ([]byte, error) {
	return encode(struct {
		wholeFailedJSON
		History []Past `json:"history"`
	}{d.whole(), listed(d.History)})
}

// List returns the failed messages that a filter chooses, in its order. A queue that neither exists nor has failed messages is a
// *NoQueueError. For many messages use Failed.Each.
func (o Failed) List(ctx context.Context, f Filter) ([]FailedMessage, error) {
	var failed []FailedMessage
	err := o.Each(ctx, f, EachOptions{}, func(m FailedMessage) error {
		failed = append(failed, m)
		return nil
	})
	return failed, err
}

// EachOptions has the options of Failed.Each. The zero value has the defaults.
type EachOptions struct {
	// Whole fills in Headers, Body, Chain and Stack, too.
	// Default: off. Cost: all of their bytes are read.
	Whole bool
	// Progress is called every now and then.
	// Default: none. Cost: the time of the call.
	Progress func(Progress)
}

// What Failed.Each reads at once.
const (
	lookAtOnce   = 20_000  // messages that it looks at in one statement
	returnAtOnce = 1_000   // of those, messages that fit
	wholeBytes   = 8 << 20 // bodies together, save when a single one has more
	wholeAtOnce  = 200     // messages with their bodies
)

// Each calls each for the failed messages that a filter chooses, in its order, and ends with the first error of each.
// It reads them in short statements, so that it needs little memory and blocks no one, however many messages there are and however few
// match. Changes that are made in the meantime may or may not be seen. Messages that fail after it began are left out.
//
// A filter with an invalid regular expression or jsonpath is a *FilterError, a queue that neither exists nor has failed messages a
// *NoQueueError.
func (o Failed) Each(ctx context.Context, f Filter, opts EachOptions, each func(FailedMessage) error) error {
	chosen, err := o.choose(ctx, f)
	if err != nil {
		return err
	}
	scan := query.FailedScan{Oldest: f.Order == Oldest, Sizes: opts.Whole, Look: lookAtOnce}
	if scan.Oldest { // else later ones come before the first
		if scan.UpTo, err = o.store.LastFailed(ctx, o.pool); err != nil {
			return fmt.Errorf("read the last number of the error table: %w", err)
		}
	}
	var looked int64
	found := 0
	for left := f.limit(); left > 0; left = f.limit() - found {
		scan.Limit = min(left, returnAtOnce)
		chunk, err := o.store.NextFailed(ctx, o.pool, chosen, scan)
		if err != nil {
			return fmt.Errorf("read failed messages: %w", err)
		}
		found += len(chunk.Failed)
		if err := o.hand(ctx, chunk, opts.Whole, each); err != nil {
			return err
		}
		if chunk.Next == nil {
			break
		}
		scan.After = chunk.Next
		if looked += int64(chunk.Looked); opts.Progress != nil {
			opts.Progress(Progress{Looked: looked, Done: int64(found)})
		}
	}
	if found == 0 {
		return o.checkQueue(ctx, f.Queue)
	}
	return nil
}

// hand hands the messages of a chunk over; whole ones by few at once, for bodies may be large.
func (o Failed) hand(ctx context.Context, chunk query.FailedChunk, whole bool, each func(FailedMessage) error) error {
	if !whole {
		for _, m := range chunk.Failed {
			if err := each(failedMessage(m)); err != nil {
				return err
			}
		}
		return nil
	}
	for from := 0; from < len(chunk.Failed); {
		var seqs []int64
		for size := 0; from < len(chunk.Failed) && len(seqs) < wholeAtOnce; from++ {
			if size += chunk.Sizes[from]; size > wholeBytes && seqs != nil {
				break
			}
			seqs = append(seqs, chunk.Failed[from].Seq)
		}
		read, err := o.store.ReadFailed(ctx, o.pool, seqs...)
		if err != nil {
			return fmt.Errorf("read failed messages: %w", err)
		}
		at := map[int64]query.Failed{}
		for _, m := range read {
			at[m.Seq] = m
		}
		for _, seq := range seqs {
			m, there := at[seq]
			if !there { // it was replayed or deleted just now
				continue
			}
			if err := each(failedMessage(m)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Show returns the failed or archived message of that number or id, with all its fields. An id of which several
// copies failed, as those of an event may, is an error that lists their numbers; none is a *NoFailedError.
func (o Failed) Show(ctx context.Context, name string) (FailedMessage, error) {
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
	if err != nil {
		return FailedMessage{}, fmt.Errorf("read failed message %s: %w", name, err)
	}
	if len(m) == 0 { // it was replayed or deleted just now
		return FailedMessage{}, &NoFailedError{Missing: []string{name}}
	}
	return failedMessage(m[0]), nil
}

// checkQueue returns a *NoQueueError for a queue that neither exists nor has anything in the error table: it is mistyped.
func (o *core) checkQueue(ctx context.Context, queue string) error {
	if queue == "" {
		return nil
	}
	known, err := o.store.QueueExists(ctx, o.pool, queue)
	if err == nil && !known {
		known, err = o.store.AnyFailed(ctx, o.pool, query.Filter{Queue: queue}, math.MaxInt64)
	}
	if err != nil {
		return fmt.Errorf("look for queue %q: %w", queue, err)
	}
	if known {
		return nil
	}
	return o.unknownQueue(ctx, queue)
}

func failedMessage(m query.Failed) FailedMessage {
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
