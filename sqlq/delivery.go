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

	"github.com/sqlq/sqlq/sqlq/internal/sending"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// Incoming is a received message without its Go type: what a Delivery embeds and middleware sees. Each attempt gets it as it
// was sent, whatever an earlier attempt did to its fields.
type Incoming struct {
	ID       ID        // set by the sender
	Type     string    // the message type
	Endpoint string    // that handles it; also the queue that it came from
	Headers  Headers   // the sender's and the library's; never nil
	Body     []byte    // as the sender encoded it; do not change it
	Attempt  int       // 1 for the first
	SentAt   time.Time // by the database's clock

	// CorrelationID says what the message is about, and ConversationID is the id of the first message of the flow. What
	// handlers send inherits both.
	CorrelationID  string
	ConversationID string // see CorrelationID

	stored stored
	client *Client
	codecs *codecs
	ctx    context.Context // of the running handler, for the middleware around what it sends
	mu     sync.Mutex
	out    []sending.Envelope // sent by the handler, gathered for the settle
	begun  bool               // there was an attempt
	closed bool               // the handler has returned
}

// Send sends a command when the message is settled: if the handler returns nil, in the transaction that removes the
// message, otherwise not at all. It returns those errors of Client.Send that are known without the database; a queue that does
// not exist fails the message when it is settled.
func (in *Incoming) Send(m Message, options ...SendOption) error { return in.gather(m, false, options) }

// Publish publishes an event when the message is settled, to the queues subscribed at that time; see Send.
func (in *Incoming) Publish(m Message, options ...SendOption) error {
	return in.gather(m, true, options)
}

func (in *Incoming) gather(m Message, publish bool, options []SendOption) error {
	return in.client.enclose(in.ctx, m, publish, in, options, func(ctx context.Context, e sending.Envelope) error {
		return in.client.config.observing.sent(ctx, &e, 1, in, in.take(e, m, publish))
	})
}

// take gathers an envelope for the settle.
func (in *Incoming) take(e sending.Envelope, m Message, publish bool) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return fmt.Errorf("%s: the handler of message %v has returned, or its attempt has ended: send before that, or through the Client", about(verbOf(publish), m), in.ID)
	}
	in.out = append(in.out, e)
	return nil
}

// stored is what an Incoming is made of, out of the reach of handlers and middleware. The library goes by it, and not by the
// fields that they see and may change while they run.
type stored struct {
	id            ID
	messageType   string
	headers, body []byte
	sentAt        int64 // µs since 1970, which is as exact as the database's times
}

// begin readies the Incoming for an attempt: nothing is left of an earlier one.
func (in *Incoming) begin(attempt int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.Attempt, in.out, in.closed = attempt, nil, false
	if in.begun {
		_ = in.fill("") // it succeeded before
	}
	in.begun = true
}

// end closes the attempt; what a handler's goroutine sends later is refused.
func (in *Incoming) end() []sending.Envelope {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	return in.out
}

func (in *Incoming) decode(into any) error {
	if unknown := unknownContentHeader(in.Headers); unknown != "" {
		return fmt.Errorf("%w: its header %.200q says how its body is to be read, and this release of the library does not know it: replay the message to a process with a newer one", ErrUndecodable, unknown)
	}
	if raw, ok := into.(*Raw); ok {
		raw.Type = in.Type
		raw.decode(in.Body, in.Headers[headerContentType])
		return nil
	}
	codec, err := in.codecs.decoding(in.Headers[headerContentType])
	if err != nil {
		return err
	}
	if err := codec.Decode(in.Body, into); err != nil {
		return fmt.Errorf("%w as %s: %w", ErrUndecodable, in.Type, err)
	}
	return nil
}

// receive makes the Incoming of a stored message in the queue of an endpoint. Headers that are not an object of strings make it
// undecodable. own is the text of its id.
func (in *Incoming) receive(m *store.Message, own string) error {
	in.stored = stored{id: ID(m.ID), messageType: m.Type, headers: m.Headers, body: m.Body, sentAt: m.SentAt.UnixMicro()}
	return in.fill(own)
}

// fill sets the fields that handlers see. own is the text of the message's id, or "".
func (in *Incoming) fill(own string) (err error) {
	in.ID, in.Type, in.Body, in.SentAt = in.stored.id, in.stored.messageType, in.stored.body, time.UnixMicro(in.stored.sentAt)
	in.Headers, err = in.storedHeaders()
	in.CorrelationID, in.ConversationID = in.Headers[headerCorrelationID], in.Headers[headerConversationID]
	if in.CorrelationID == "" || in.ConversationID == "" {
		if own == "" {
			own = in.ID.String()
		}
		in.CorrelationID, in.ConversationID = cmp.Or(in.CorrelationID, own), cmp.Or(in.ConversationID, own)
	}
	return err
}

// storedHeaders returns the headers as they were stored: never nil, and a map of the caller's own.
func (in *Incoming) storedHeaders() (Headers, error) {
	if len(in.stored.headers) == 0 {
		return Headers{}, nil
	}
	var headers Headers
	if err := json.Unmarshal(in.stored.headers, &headers); err != nil {
		return Headers{}, fmt.Errorf("%w: its headers are not a JSON object of strings: %w", ErrUndecodable, err)
	}
	if headers == nil {
		headers = Headers{}
	}
	return headers, nil
}

// maxReplays is the most replays that are counted, whatever a header says: the error table's column, and a replay more, hold it.
const maxReplays = 1_000_000_000

// history reads the bookkeeping headers of a message that fails, and returns its headers without them: nil when there is
// none of them, "" when there is nothing else.
func (in *Incoming) history() (firstFailedAt *time.Time, replays int, rest *string) {
	headers, _ := in.storedHeaders()
	if headers[headerFirstFailedAt]+headers[headerReplays]+headers[headerCrashes]+headers[headerWaited] == "" {
		return nil, 0, nil
	}
	if t, err := time.Parse(time.RFC3339, headers[headerFirstFailedAt]); err == nil && t.UTC().Year() >= 1 && t.UTC().Year() <= 9999 {
		t = t.UTC()
		firstFailedAt = &t
	}
	replays, _ = strconv.Atoi(headers[headerReplays])
	replays = min(max(replays, 0), maxReplays)
	maps.DeleteFunc(headers, func(name, _ string) bool {
		return name == headerFirstFailedAt || name == headerReplays || name == headerCrashes || name == headerWaited
	})
	text := ""
	if len(headers) > 0 {
		text = encodeHeaders(headers)
	}
	return firstFailedAt, replays, &text
}

func encodeHeaders(headers Headers) string {
	encoded, _ := json.Marshal(headers) // strings only: it cannot fail
	return string(encoded)
}

// failedBefore reports whether the message has failed in an earlier round of attempts.
func (in *Incoming) failedBefore() bool {
	headers, _ := in.storedHeaders()
	return headers[headerFirstFailedAt] != ""
}

// headersAsFetched returns the headers that the message had when it was fetched; nil for ones that the library could not read.
func (in *Incoming) headersAsFetched() *string {
	headers, err := in.storedHeaders()
	if err != nil {
		return nil
	}
	text := encodeHeaders(headers)
	return &text
}

// headersUpToFirstFailure returns what store.Retry.Headers wants of a stamped one: nil when the time of the first failure is known, or
// the headers are none that the library could add to.
func (in *Incoming) headersUpToFirstFailure() *string {
	headers, _ := in.storedHeaders()
	if headers[headerFirstFailedAt] != "" {
		return nil
	}
	text := "{"
	if len(headers) > 0 {
		encoded := encodeHeaders(headers)
		text = encoded[:len(encoded)-1] + ","
	}
	text += `"` + headerFirstFailedAt + `":"`
	return &text
}
