package ops

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// MaxBody is the largest body, in bytes, that Send takes.
const MaxBody = 16 << 20

// What one round trip of Send carries at most.
const (
	sendBatch      = 500
	sendBatchBytes = 4 << 20
)

// Outgoing is what the messages of one Send or Publish have in common.
type Outgoing struct {
	Type    string            // needed
	Headers map[string]string // default: none
	Delay   time.Duration     // before they are ready, at most a hundred years; default 0: at once
	At      time.Time         // instead of Delay: when they are ready, now to a hundred years ahead; up to a minute ago is now; default: Delay counts
	TTL     time.Duration     // after this time they are not handled any more; default 0: they never expire
	ID      string            // a UUID, for a single message; default: a new one for each
}

// Send sends one message for each body to a queue, in order, all in one transaction, and returns their ids. Bodies are
// JSON. When one of them is refused (a *BodyError) or the database refuses the messages, none was sent.
//
// It is for operators and scripts. Programs send with package sqlq.
func (o *Ops) Send(ctx context.Context, queue string, m Outgoing, bodies ...json.RawMessage) (ids []string, err error) {
	common, err := m.common(bodies)
	if err != nil {
		return nil, err
	}
	err = pgx.BeginFunc(ctx, o.pool, func(tx pgx.Tx) error {
		for i := 0; i < len(bodies); {
			var batch pgx.Batch
			for size := 0; i < len(bodies) && batch.Len() < sendBatch && size < sendBatchBytes; i++ {
				size += len(bodies[i])
				common.Body = bodies[i]
				o.store.SendJSON(&batch, queue, common, func(id string) { ids = append(ids, id) })
			}
			if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, o.noQueue(ctx, queue, fmt.Errorf("send to queue %q: %w", queue, err))
	}
	return ids, nil
}

// PreviewSend sends nothing and returns the error that Send would: it looks at all bodies, and sends the first one in a
// transaction that it rolls back.
func (o *Ops) PreviewSend(ctx context.Context, queue string, m Outgoing, bodies ...json.RawMessage) error {
	common, err := m.common(bodies)
	if err != nil || len(bodies) == 0 {
		return err
	}
	common.Body = bodies[0]
	err = o.rolledBack(ctx, func(tx pgx.Tx) error {
		var batch pgx.Batch
		o.store.SendJSON(&batch, queue, common, func(string) {})
		return tx.SendBatch(ctx, &batch).Close()
	})
	if err != nil {
		return o.noQueue(ctx, queue, fmt.Errorf("send to queue %q: %w", queue, err))
	}
	return nil
}

// Published is an event that Publish stored.
type Published struct {
	ID     string `json:"id"`     // of the event
	Copies int    `json:"copies"` // one for each subscribed queue
}

// ErrNoSubscriber is returned by Publish for an event that no queue is subscribed to. Nothing was stored. Subscribe makes a
// queue get it.
var ErrNoSubscriber = errors.New("no queue is subscribed to it")

// Publish publishes one event for each body, in order, all in one transaction, and returns them with the queues that were
// subscribed. Bodies are refused as by Send. Where no queue is subscribed nothing is stored, and the error is
// ErrNoSubscriber. A role that may not read the subscriptions is told the numbers of copies alone: queues is nil.
func (o *Ops) Publish(ctx context.Context, m Outgoing, bodies ...json.RawMessage) (events []Published, queues []string, err error) {
	common, err := m.common(bodies)
	if err != nil {
		return nil, nil, err
	}
	copies := 0
	// Repeatable read, so that the queues that are told are those that were published to.
	err = pgx.BeginTxFunc(ctx, o.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		if queues, err = o.subscribed(ctx, tx, m.Type); err != nil {
			return err
		}
		for i := 0; i < len(bodies); {
			var batch pgx.Batch
			for size := 0; i < len(bodies) && batch.Len() < sendBatch && size < sendBatchBytes; i++ {
				size += len(bodies[i])
				common.Body = bodies[i]
				if m.ID == "" {
					common.ID = sqlq.NewID().String()
				}
				id := common.ID
				o.store.PublishJSON(&batch, common, func(n int) { events, copies = append(events, Published{id, n}), copies+n })
			}
			if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && copies == 0 && len(bodies) > 0 {
		err = ErrNoSubscriber
	}
	if err != nil {
		return nil, nil, fmt.Errorf("publish %q: %w", m.Type, err)
	}
	return events, queues, nil
}

// PreviewPublish publishes nothing and returns how many copies of each event Publish would store, in which queues, and the error that it
// would return: it looks at all bodies, and publishes the first one in a transaction that it rolls back.
func (o *Ops) PreviewPublish(ctx context.Context, m Outgoing, bodies ...json.RawMessage) (copies int, queues []string, err error) {
	common, err := m.common(bodies)
	if err != nil || len(bodies) == 0 {
		return 0, nil, err
	}
	common.Body = bodies[0]
	err = o.rolledBack(ctx, func(tx pgx.Tx) error {
		if queues, err = o.subscribed(ctx, tx, m.Type); err != nil {
			return err
		}
		var batch pgx.Batch
		o.store.PublishJSON(&batch, common, func(n int) { copies = n })
		return tx.SendBatch(ctx, &batch).Close()
	})
	if err == nil && copies == 0 {
		err = ErrNoSubscriber
	}
	if err != nil {
		return 0, nil, fmt.Errorf("publish %q: %w", m.Type, err)
	}
	return copies, queues, nil
}

// subscribed returns the queues that are subscribed to a type; nil: this role may not see them.
func (o *Ops) subscribed(ctx context.Context, tx pgx.Tx, messageType string) (queues []string, err error) {
	if may, err := o.store.MaySeeSubscriptions(ctx, tx); err != nil || !may {
		return nil, err
	}
	subscriptions, err := o.store.Subscriptions.List(ctx, tx, messageType, "")
	queues = []string{}
	for _, s := range subscriptions {
		queues = append(queues, s.Queue)
	}
	return queues, err
}

// common returns what the store sends for each body, after it has looked at all of them.
func (m Outgoing) common(bodies []json.RawMessage) (common query.JSONMessage, err error) {
	if m.ID != "" && len(bodies) != 1 {
		return common, fmt.Errorf("one id was given for %d messages", len(bodies))
	}
	if m.ID != "" {
		if m.ID, err = parseID(m.ID); err != nil {
			return common, fmt.Errorf("message id: %w", err)
		}
	}
	for i, body := range bodies {
		if err := checkBody(body); err != nil {
			return common, &BodyError{Number: i + 1, Err: err}
		}
	}
	if !m.At.IsZero() && time.Since(m.At) > time.Minute { // as package sqlq has it
		return common, fmt.Errorf("%w: %s has passed: without a time they are ready at once", sqlq.ErrInvalidTime, m.At.Format(time.RFC3339))
	}
	common = query.JSONMessage{Type: m.Type, Delay: m.Delay, At: m.At, TTL: m.TTL, ID: m.ID}
	if len(m.Headers) > 0 {
		if common.Headers, err = json.Marshal(m.Headers); err != nil {
			return common, fmt.Errorf("encode headers: %w", err)
		}
	}
	return common, nil
}

// text reads UTF-8, and passes over the byte order mark that some editors write in front of it.
func text(r io.Reader) *bufio.Reader {
	in := bufio.NewReaderSize(r, 64<<10)
	if mark, err := in.Peek(3); err == nil && string(mark) == "\ufeff" {
		_, _ = in.Discard(3)
	}
	return in
}

// ReadLines reads a body from each line that is not blank. A *BodyError names the first line that is not JSON.
func ReadLines(r io.Reader) ([]json.RawMessage, error) {
	var bodies []json.RawMessage
	in := text(r)
	for line := 1; ; line++ {
		read, err := in.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("read line %d: %w", line, err)
		}
		if body := bytes.TrimSpace(read); len(body) > 0 {
			if err := checkBody(body); err != nil {
				return nil, &BodyError{Line: line, Number: len(bodies) + 1, Err: err}
			}
			bodies = append(bodies, body)
		}
		if err == io.EOF {
			return bodies, nil
		}
	}
}

// ReadBodies splits what it reads into the bodies for Send: JSON lines, or JSON documents that go over several lines, each
// beginning on a line of its own. A *BodyError names the line at which a body begins that is not JSON.
func ReadBodies(r io.Reader) ([]json.RawMessage, error) {
	var bodies []json.RawMessage
	var body []byte // read so far of the body that begins on line begin
	var begin, depth int
	in := text(r)
	for line := 1; ; line++ {
		read, err := in.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("read line %d: %w", line, err)
		}
		atEnd := err == io.EOF
		if body == nil && len(bytes.TrimSpace(read)) > 0 {
			begin, depth = line, 0
		}
		if body != nil || len(bytes.TrimSpace(read)) > 0 {
			body = append(body, read...)
			opened, closed := nesting(read)
			depth += opened
			if depth > 0 && closed && !atEnd && len(body) <= MaxBody {
				continue
			}
			body = bytes.TrimSpace(body)
			if err := checkBody(body); err != nil {
				return nil, &BodyError{Line: begin, Number: len(bodies) + 1, Err: err}
			}
			bodies = append(bodies, body)
			body = nil
		}
		if atEnd {
			return bodies, nil
		}
	}
}

// nesting returns how many more objects and arrays a line of JSON opens than it ends, and whether all its strings are
// closed, which in JSON they are at the end of every line.
func nesting(line []byte) (opened int, closed bool) {
	inString, escaped := false, false
	for _, c := range line {
		switch {
		case escaped:
			escaped = false
		case inString && c == '\\':
			escaped = true
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			opened++
		case c == '}' || c == ']':
			opened--
		}
	}
	return opened, !inString
}

func checkBody(body []byte) error {
	if len(body) > MaxBody {
		return fmt.Errorf("the body has more than %d bytes, the most that a message carries", MaxBody)
	}
	var value json.RawMessage
	if err := json.Unmarshal(body, &value); err != nil {
		return fmt.Errorf("the body is not JSON: %w", err)
	}
	if !utf8.Valid(body) {
		return errors.New("the body is not JSON: it is not UTF-8")
	}
	return nil
}
