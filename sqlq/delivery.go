package sqlq

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// Incoming is a received message without its Go type: what a Delivery embeds and middleware sees.
type Incoming struct {
	ID       ID        // which the sender gave it
	Type     string    // the message type
	Endpoint string    // that handles it; also the queue that it came from
	Headers  Headers   // the sender's and the library's
	Body     []byte    // as the sender encoded it; do not change it
	Attempt  int       // 1 for the first
	SentAt   time.Time // by the database's clock

	// CorrelationID says what the message is about and ConversationID is the id of the first message of the flow; both
	// follow along to what handlers send.
	CorrelationID  string
	ConversationID string // see CorrelationID

	client *Client
	codec  *Codec
	ctx    context.Context // of the running handler, for the middleware around what it sends
	mu     sync.Mutex
	out    []envelope // sent by the handler, gathered for the settle
	closed bool       // the handler has returned
}

// Send sends a command when the message is settled: if the handler returns nil, in the same transaction that removes the
// message, else not at all. Errors are those of Client.Send that can be known without the database; a queue that does
// not exist fails the message when it is settled.
func (in *Incoming) Send(m Message, options ...SendOption) error { return in.gather(m, false, options) }

// Publish publishes an event when the message is settled, to the queues that are subscribed then; see Send.
func (in *Incoming) Publish(m Message, options ...SendOption) error {
	return in.gather(m, true, options)
}

func (in *Incoming) gather(m Message, publish bool, options []SendOption) error {
	return in.client.enclose(in.ctx, m, publish, in, options, func(e envelope) error {
		in.mu.Lock()
		defer in.mu.Unlock()
		if in.closed {
			return fmt.Errorf("%s: the handler of message %v has returned, or its attempt has ended: send before that, or through the Client", about(verbOf(publish), m), in.ID)
		}
		in.out = append(in.out, e)
		return nil
	})
}

// begin readies the Incoming for an attempt: nothing of an earlier one is sent.
func (in *Incoming) begin(attempt int) {
	in.mu.Lock()
	in.Attempt, in.out, in.closed = attempt, nil, false
	in.mu.Unlock()
}

// end closes the attempt; what a handler's goroutine sends later is refused.
func (in *Incoming) end() []envelope {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	return in.out
}

func (in *Incoming) decode(into any) error {
	contentType := in.Headers[headerContentType]
	if contentType == "" {
		contentType = jsonContentType
	}
	if contentType != in.codec.ContentType {
		return fmt.Errorf("%w: its content type is %q, this endpoint's Config.Codec reads %q", ErrUndecodable, contentType, in.codec.ContentType)
	}
	if err := in.codec.Decode(in.Body, into); err != nil {
		return fmt.Errorf("%w as %s: %w", ErrUndecodable, in.Type, err)
	}
	return nil
}

// receive fills the Incoming from a stored message. Headers that are not an object of strings make it undecodable.
func (in *Incoming) receive(m *store.Message) error {
	in.ID, in.Type, in.Body, in.SentAt = ID(m.ID), m.Type, m.Body, m.SentAt
	if len(m.Headers) > 0 {
		if err := json.Unmarshal(m.Headers, &in.Headers); err != nil {
			in.Headers = nil
			return fmt.Errorf("%w: its headers are not a JSON object of strings: %w", ErrUndecodable, err)
		}
	}
	in.CorrelationID, in.ConversationID = in.Headers[headerCorrelationID], in.Headers[headerConversationID]
	if in.CorrelationID == "" || in.ConversationID == "" {
		own := in.ID.String()
		in.CorrelationID, in.ConversationID = cmp.Or(in.CorrelationID, own), cmp.Or(in.ConversationID, own)
	}
	return nil
}

// history reads the bookkeeping headers of a message that fails, and returns its headers without them: nil when there is
// none of them, "" when there is nothing else.
func (in *Incoming) history() (firstFailedAt *time.Time, replays int, rest *string) {
	if in.Headers[headerFirstFailedAt]+in.Headers[headerReplays]+in.Headers[headerCrashes] == "" {
		return nil, 0, nil
	}
	if t, err := time.Parse(time.RFC3339, in.Headers[headerFirstFailedAt]); err == nil {
		firstFailedAt = &t
	}
	replays, _ = strconv.Atoi(in.Headers[headerReplays])
	others := maps.Clone(in.Headers)
	maps.DeleteFunc(others, func(name, _ string) bool {
		return name == headerFirstFailedAt || name == headerReplays || name == headerCrashes
	})
	text := ""
	if len(others) > 0 {
		encoded, _ := json.Marshal(others) // strings only: it cannot fail
		text = string(encoded)
	}
	return firstFailedAt, replays, &text
}

// headersUpToFirstFailure returns what store.Retry.Headers wants: nil when the time of the first failure is known, or
// the headers are none that the library could add to.
func (in *Incoming) headersUpToFirstFailure() *string {
	if in.Headers[headerFirstFailedAt] != "" {
		return nil
	}
	text := "{"
	if len(in.Headers) > 0 {
		encoded, _ := json.Marshal(in.Headers)
		text = string(encoded[:len(encoded)-1]) + ","
	}
	text += `"` + headerFirstFailedAt + `":"`
	return &text
}
