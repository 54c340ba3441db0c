package sqlqtest

import (
	"context"
	"time"

	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/internal/handmade"
)

// DeliveryOption changes the deliveries that NewDelivery and NewBatch make.
type DeliveryOption func(*sqlq.Config)

// WithConfig makes the delivery send as a Client with this Config would: with its codec, its middleware and its limits, and with
// an error for commands that have no queue in Config.Routes.
func WithConfig(config sqlq.Config) DeliveryOption {
	return func(c *sqlq.Config) {
		*c = config
		if c.Routes == nil {
			c.Routes = map[string]string{}
		}
	}
}

// unrouted stands for the queue of commands that need no route. A Record does not show it.
const unrouted = "sqlqtest-unrouted"

// NewDelivery makes a delivery by hand, so that a handler can be tested like any other function, without Postgres. The message
// is encoded and decoded, as a real one is. The delivery is the first, immediate attempt in the endpoint "test", and the
// message's id is its correlation id; set the delivery's fields to change that.
//
// What the handler sends through the delivery is checked and encoded as usual, and is then in the Outbox, for Sent, Published
// and the like. (In production it is stored if the handler returns nil.) Commands need no route, and have no queue, unless To
// names one or WithConfig says how they are sent.
func NewDelivery[T sqlq.Message](t TB, message T, options ...DeliveryOption) (*sqlq.Delivery[T], Outbox) {
	t.Helper()
	var config sqlq.Config
	for _, option := range options {
		option(&config)
	}
	otherwise := unrouted
	if config.Routes != nil {
		otherwise = ""
	}
	id, now := sqlq.NewID(), time.Now()
	messageType := typeName[T](t)
	if messageType == "" { // it is a Raw
		messageType = message.MessageType()
	}
	incoming := &sqlq.Incoming{ID: id, Type: messageType, Endpoint: "test", Headers: sqlq.Headers{}, Attempt: 1, SentAt: now,
		CorrelationID: id.String(), ConversationID: id.String()}
	d := &sqlq.Delivery[T]{Incoming: incoming}
	sent, err := handmade.Ready(incoming, config, otherwise)
	if err != nil {
		fatalf(t, "sqlqtest: %v", err)
	}
	r := record{kind: messageType}
	if r.Body, r.contentType, err = handmade.Encode(config, message); err != nil {
		fatalf(t, "sqlqtest: %s cannot be encoded: %v", incoming.Type, err)
	}
	if err := decode(config, r, &d.Message); err != nil {
		fatalf(t, "sqlqtest: %s cannot be decoded again: %v\n%s", incoming.Type, err, indented(r.Body))
	}
	incoming.Body = r.Body
	if r.contentType != jsonContentType {
		incoming.Headers[headerContentType] = r.contentType
	}
	return d, &outbox{with: config, sent: sent, made: now}
}

// NewBatch makes the deliveries that a batch handler takes, as NewDelivery makes one. What the handler sends through any of them is in the
// Outbox. Which messages it says have failed, their Failure tells.
func NewBatch[T sqlq.Message](t TB, messages []T, options ...DeliveryOption) ([]*sqlq.BatchDelivery[T], Outbox) {
	t.Helper()
	all := &outbox{made: time.Now()}
	var ds []*sqlq.BatchDelivery[T]
	var sent []func() []handmade.Sent
	for _, m := range messages {
		d, of := NewDelivery(t, m, options...)
		ds = append(ds, &sqlq.BatchDelivery[T]{Incoming: d.Incoming, Message: d.Message})
		all.with, sent = of.config(), append(sent, of.(*outbox).sent)
	}
	all.sent = func() (together []handmade.Sent) {
		for _, of := range sent {
			together = append(together, of()...)
		}
		return together
	}
	return ds, all
}

// outbox is the Outbox of deliveries made by NewDelivery or NewBatch.
type outbox struct {
	with sqlq.Config
	sent func() []handmade.Sent
	made time.Time
}

func (o *outbox) outgoing(_ context.Context, kind string, events bool) (all []record, err error) {
	for _, s := range o.sent() {
		if kind != "" && s.Type != kind || events != (s.Queue == "") {
			continue
		}
		r := record{kind: s.Type, Record: Record[sqlq.Message]{ID: s.ID, Queue: s.Queue, Body: s.Body, Delay: s.Delay, ExpiresIn: s.TTL}}
		if s.Queue == unrouted {
			r.Queue = ""
		}
		if !s.DueAt.IsZero() {
			r.Delay = rounded(s.DueAt.Sub(o.made))
		}
		if err := r.setHeaders(s.Headers); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

func (o *outbox) config() sqlq.Config { return o.with }

func (o *outbox) failures(context.Context) []string { return nil }
