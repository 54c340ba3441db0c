package sqlqtest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"time"

	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/internal/handmade"
)

// Record is a message that was sent or published.
type Record[T sqlq.Message] struct {
	Message T // decoded

	ID      sqlq.ID      // of the message
	Queue   string       // to which a command was sent; "" for an event
	Headers sqlq.Headers // without the library's own
	Body    []byte       // encoded

	// CorrelationID and ConversationID are taken over from the message whose handler sent this one; "" if the message starts
	// a flow, and its id stands for both.
	CorrelationID, ConversationID string

	// Delay is how long after it was sent the message is due, ExpiresIn how long it lives; 0 means not delayed, and no expiry. A
	// Harness measures them in the database and rounds them: to a second, those below 5 s to a tenth of a second.
	Delay, ExpiresIn time.Duration
}

// Outbox is the record of messages that were sent: a Harness, for its whole database, however they were sent; or what
// NewDelivery or NewBatch returns, for those sent through their deliveries.
type Outbox interface {
	// outgoing returns the events or the commands of a type; "" means every type.
	outgoing(ctx context.Context, kind string, events bool) ([]record, error)
	config() sqlq.Config
	// failures describes what has failed, to help find a missing message.
	failures(ctx context.Context) []string
}

// record is a Record whose message is not decoded yet.
type record struct {
	kind        string // its type
	contentType string // "": JSON
	Record[sqlq.Message]
}

// lookWithin limits one look into an Outbox.
const lookWithin = time.Minute

// Sent returns the commands of type T that were sent, in the order in which they were stored; with sqlq.Raw those of all types. In a
// Harness these are the ones whose transactions have committed: from Send, SendMany, SendBatch and SendTx, from handlers that
// succeeded, from SQL.
func Sent[T sqlq.Message](t TB, from Outbox) []Record[T] {
	t.Helper()
	if _, event := any(*new(T)).(sqlq.Event); event {
		fatalf(t, "sqlqtest: %v is an event; use Published", reflect.TypeFor[T]())
	}
	return outgoing[T](t, from, false)
}

// Published returns the events of type T that were published, in the order in which they were stored, each one once, however
// many subscribers it has, even none; with sqlq.Raw those of all types. See Sent for what a Harness records, and Harness.Watch for
// events that it does not see.
func Published[T sqlq.Message](t TB, from Outbox) []Record[T] {
	t.Helper()
	_, event := any(*new(T)).(sqlq.Event)
	if _, raw := any(*new(T)).(sqlq.Raw); !event && !raw {
		fatalf(t, "sqlqtest: %v is a command; use Sent", reflect.TypeFor[T]())
	}
	return outgoing[T](t, from, true)
}

func outgoing[T sqlq.Message](t TB, from Outbox, events bool) []Record[T] {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), lookWithin)
	defer cancel()
	found, err := from.outgoing(ctx, typeName[T](t), events)
	if err != nil {
		fatalf(t, "sqlqtest: %v", err)
	}
	all := make([]Record[T], len(found))
	for i, r := range found {
		all[i] = typed[T](r.Record)
		if err := decode(from.config(), r, &all[i].Message); err != nil {
			fatalf(t, "sqlqtest: message %v of type %s cannot be decoded as %v: %v\n%s", r.ID, r.kind, reflect.TypeFor[T](), err, indented(r.Body))
		}
	}
	return all
}

// typeName returns the message type of T; "" for a Raw, which may have any type.
func typeName[T sqlq.Message](t TB) string {
	t.Helper()
	if reflect.TypeFor[T]() == reflect.TypeFor[*sqlq.Raw]() {
		fatalf(t, "sqlqtest: use sqlq.Raw, not a pointer to it")
	}
	if reflect.TypeFor[T]().Kind() == reflect.Interface {
		fatalf(t, "sqlqtest: %v is an interface; use a message's own type", reflect.TypeFor[T]())
	}
	return (*new(T)).MessageType()
}

func typed[T sqlq.Message](r Record[sqlq.Message]) Record[T] {
	return Record[T]{ID: r.ID, Queue: r.Queue, Headers: r.Headers, Body: r.Body, CorrelationID: r.CorrelationID,
		ConversationID: r.ConversationID, Delay: r.Delay, ExpiresIn: r.ExpiresIn}
}

// decode reads the body of a record into a message, which may be a pointer.
func decode[T sqlq.Message](config sqlq.Config, r record, into *T) error {
	if raw, ok := any(into).(*sqlq.Raw); ok {
		raw.Type = r.kind
	}
	if goType := reflect.TypeFor[T](); goType.Kind() == reflect.Pointer {
		*into = reflect.New(goType.Elem()).Interface().(T)
		return handmade.Decode(config, r.contentType, r.Body, *into)
	}
	return handmade.Decode(config, r.contentType, r.Body, into)
}

// The library's own headers that a Record shows.
const (
	ownHeaders         = "sqlq-"
	headerCorrelation  = "sqlq-correlation-id"
	headerConversation = "sqlq-conversation-id"
	headerContentType  = "sqlq-content-type"
	jsonContentType    = "application/json" // the header is missing then
)

// setHeaders reads the stored headers.
func (r *record) setHeaders(stored []byte) error {
	if len(stored) == 0 {
		return nil
	}
	if err := json.Unmarshal(stored, &r.Headers); err != nil {
		return fmt.Errorf("headers of message %v: %w", r.ID, err)
	}
	r.CorrelationID, r.ConversationID, r.contentType = r.Headers[headerCorrelation], r.Headers[headerConversation], r.Headers[headerContentType]
	maps.DeleteFunc(r.Headers, func(name, _ string) bool { return strings.HasPrefix(name, ownHeaders) })
	if len(r.Headers) == 0 {
		r.Headers = nil
	}
	return nil
}

func (h *Harness) outgoing(ctx context.Context, kind string, events bool) ([]record, error) {
	found, err := h.recordedOf(ctx, kind, events)
	if err != nil {
		return nil, err
	}
	all := make([]record, len(found))
	for i, f := range found {
		all[i] = record{kind: f.kind, Record: Record[sqlq.Message]{ID: f.id, Body: f.body, Delay: measured(f.delayUS), ExpiresIn: measured(f.expiresUS)}}
		if !events {
			all[i].Queue = f.queue
		}
		if err := all[i].setHeaders(f.headers); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// measured converts a measured number of microseconds into a duration. The database reads its clock separately for each end, so
// the result is rounded to what was probably meant: to a second, or to a tenth of one if it is shorter than five.
func measured(us *int64) time.Duration {
	if us == nil {
		return 0
	}
	return rounded(time.Duration(*us) * time.Microsecond)
}

func rounded(d time.Duration) time.Duration {
	if d < 5*time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}

func (h *Harness) config() sqlq.Config { return h.Config }
