package sqlq

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq/internal/sending"
	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// DBTX is the caller's transaction: a pgx.Tx, a pgx connection on which one was begun, or a transaction of database/sql through
// SQLTx.
type DBTX interface {
	// QueryRow runs a statement that returns at most one row, as in pgx.
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Send sends a command to the queue that its type is routed to. When it returns nil the message is committed. Concurrent
// sends share transactions (group commit), so sending from many goroutines is fast.
//
// Errors: ErrNoRoute, ErrIsEvent, ErrNoQueue, ErrInvalidName, ErrInvalidTime, ErrHeadersTooLarge, ErrEncode, ErrBodyTooLarge,
// ErrInHandler, ErrPermissionDenied, ErrClosed, and those of the database. With those named here the message was not stored. After a
// lost connection, or if ctx ends, the outcome is unknown.
func (c *Client) Send(ctx context.Context, m Message, options ...SendOption) error {
	if err := c.usable(ctx, about("send", m), options); err != nil {
		return err
	}
	return c.enclose(ctx, m, false, nil, options, func(ctx context.Context, e sending.Envelope) error {
		return c.config.observing.sent(ctx, &e, 1, nil, c.sendError(c.sender.Send(ctx, e), e))
	})
}

// SendTx sends a command as part of the caller's transaction: it is sent if and when that commits. The transaction is
// the outbox. It returns the errors of Send, and ErrNoTransaction. An error of the database has aborted the transaction, as with any
// failed statement.
func (c *Client) SendTx(ctx context.Context, tx DBTX, m Message, options ...SendOption) error {
	if c.closedTo(ctx) {
		return fmt.Errorf("%s: %w", about("send", m), ErrClosed)
	}
	if err := checkTransaction(tx); err != nil {
		return fmt.Errorf("%s: %w", about("send", m), err)
	}
	return c.enclose(ctx, m, false, nil, options, func(ctx context.Context, e sending.Envelope) error {
		var err error
		if e.Deferred() {
			_, err = c.store.Delayed.Defer(ctx, tx, e.Queue, e.Outgoing, !c.config.NoNotify)
		} else {
			err = c.store.Sending.InsertOne(ctx, tx, e.Queue, e.Outgoing, !c.config.NoNotify)
		}
		if err == nil && e.Copies != nil {
			*e.Copies = 1
		}
		return c.config.observing.sent(ctx, &e, 1, nil, c.sendError(err, e))
	})
}

// checkTransaction refuses what is seen not to be a transaction: what it is given would be committed by itself, whatever
// becomes of the business data beside it.
func checkTransaction(tx DBTX) error {
	begun := true
	switch tx := tx.(type) {
	case nil:
		begun = false
	case *pgxpool.Pool:
		begun = false
	case *pgx.Conn:
		begun = inTransaction(tx)
	case *pgxpool.Conn:
		begun = inTransaction(tx.Conn())
	case sqlTx:
		begun = !tx.autocommit
	}
	if !begun {
		return fmt.Errorf("%w: begin one and pass that, or call Send or Publish", ErrNoTransaction)
	}
	return nil
}

func inTransaction(c *pgx.Conn) bool { return c.IsClosed() || c.PgConn().TxStatus() != 'I' } // a closed one has its own error

// SendMany sends commands, each to its queue, in one transaction: all of them or none. The options apply to each
// message; WithID and WithReceipt are refused. It is the fastest way to send thousands. It returns the errors of Send; an error about
// one message says which. For events, or options for each message, see SendBatch.
func (c *Client) SendMany(ctx context.Context, ms []Message, options ...SendOption) error {
	if err := c.usable(ctx, "send many", options); err != nil {
		return err
	}
	switch o, _ := collect(options); {
	case o.id != (ID{}):
		return errors.New("send many: WithID would give every message the same id: leave it out, or use SendBatch, where each message has its own options")
	case o.receipt != nil:
		return errors.New("send many: WithReceipt is for a single message: use SendBatch, which returns a receipt for each")
	}
	b := &enclosed{client: c, n: len(ms), all: make([]sending.Envelope, 0, len(ms))}
	for i, m := range ms {
		if err := b.add(ctx, i, m, false, options); err != nil {
			return b.tell(fmt.Errorf("message %d of %d: %w", i+1, len(ms), err))
		}
	}
	if err := c.sender.SendAll(ctx, b.all); err != nil {
		return b.tell(c.sendError(err, b.all...))
	}
	return b.tell(nil)
}

// verbOf names what is done with a message in an error.
func verbOf(publish bool) string {
	if publish {
		return "publish"
	}
	return "send"
}

// about names a message in an error.
func about(verb string, m Message) string {
	if isNil(m) {
		return verb
	}
	messageType := m.MessageType()
	if rawOf(m) != nil && checkTypeName(messageType) != nil {
		return verb // its type may be anything
	}
	return verb + " " + messageType
}

// enclose checks, routes and encodes a message, passes it through the middleware and hands its envelope to last. in is
// the delivery whose handler sends it, if one does.
func (c *Client) enclose(ctx context.Context, m Message, publish bool, in *Incoming, options []SendOption, last func(context.Context, sending.Envelope) error) error {
	verb := verbOf(publish)
	if isNil(m) {
		return fmt.Errorf("%s: the message is nil", verb)
	}
	out := &Outgoing{Type: m.MessageType(), Message: m}
	if err := checkTypeName(out.Type); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	o, err := collect(options)
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, out.Type, err)
	}
	if o.receipt != nil {
		*o.receipt = Receipt{}
	}
	out.ID, out.Headers = o.id, o.headers
	if out.Headers == nil {
		out.Headers = Headers{} // middleware may add some
	}
	if out.Queue, err = c.route(m, publish, o.to); err != nil {
		return fmt.Errorf("%s %s: %w", verb, out.Type, err)
	}
	if out.ID == (ID{}) {
		out.ID = NewID()
	}
	var contentType string
	if out.Body, contentType, err = c.config.codecs.encode(m); err != nil {
		return fmt.Errorf("%s %s: %w", verb, out.Type, err)
	}
	typ, queue := out.Type, out.Queue
	send := func(ctx context.Context, out *Outgoing) error {
		if out.Type != typ || out.Queue != queue {
			if err := checkReaddressed(out, publish); err != nil {
				return fmt.Errorf("%s %.200q: changed by middleware: %w", verb, out.Type, err)
			}
		}
		e := sending.Envelope{Queue: out.Queue, Outgoing: store.Outgoing{
			ID: out.ID, Type: out.Type, Body: out.Body, Delay: o.delay, DueAt: o.at, TTL: o.ttl}}
		if len(out.Body) > c.config.MaxBody {
			return fmt.Errorf("%s %s: %w: %d bytes, the limit is %d: send a reference to the content, or raise Config.MaxBody", verb, out.Type, ErrBodyTooLarge, len(out.Body), c.config.MaxBody)
		}
		if e.Body == nil {
			e.Body = []byte{}
		}
		ctx = c.config.observing.sending(ctx, out, publish, in)
		var err error
		if e.Headers, err = c.headers(out, in, contentType, o.correlation); err != nil {
			return c.config.observing.sent(ctx, &e, 1, in, fmt.Errorf("%s %s: %w", verb, out.Type, err))
		}
		if o.receipt == nil {
			return last(ctx, e)
		}
		return o.receipt.write(e, in, func(e sending.Envelope) error { return last(ctx, e) })
	}
	for i := len(c.config.SendMiddleware) - 1; i >= 0; i-- {
		send = c.config.SendMiddleware[i](send)
	}
	return send(ctx, out)
}

// checkReaddressed checks again what middleware has changed.
func checkReaddressed(out *Outgoing, publish bool) error {
	if err := checkTypeName(out.Type); err != nil {
		return err
	}
	if publish {
		if out.Queue != "" {
			return fmt.Errorf("%w: an event goes to its subscribers, not to queue %q", ErrIsEvent, out.Queue)
		}
		return nil
	}
	return checkQueueName(out.Queue)
}

// headers returns a message's headers as they are stored: the sender's, and of the library's own those that differ from
// what their absence means.
func (c *Client) headers(out *Outgoing, in *Incoming, contentType, correlation string) ([]byte, error) {
	all := Headers{}
	if err := checkHeaders(out.Headers); err != nil { // once more: middleware may have added some
		return nil, err
	}
	maps.Copy(all, out.Headers)
	if contentType != jsonContentType {
		all[headerContentType] = contentType
	}
	if in != nil {
		all[headerConversationID], all[headerCorrelationID] = in.ConversationID, in.CorrelationID
	}
	if correlation != "" {
		all[headerCorrelationID] = correlation
	}
	if len(all) == 0 {
		return nil, nil
	}
	return json.Marshal(all)
}

// sendError explains the database's answer to messages that were to be stored together.
func (c *Client) sendError(err error, all ...sending.Envelope) error {
	if err == nil {
		return nil
	}
	err = session.ExplainPooler(session.Unreachable(session.ServerSaid(err)))
	queues := queuesOf(all)
	what := fmt.Sprintf("send %s to queue %q", all[0].Type, all[0].Queue)
	switch {
	case len(queues) == 0 && len(all) > 1:
		what = fmt.Sprintf("publish %d events to their subscribers", len(all))
	case len(queues) == 0:
		what = fmt.Sprintf("publish %s to its subscribers", all[0].Type)
	case len(queues) > 1:
		what = fmt.Sprintf("send %d messages to queues %s", len(all), quoted(queues))
	case len(all) > 1:
		what = fmt.Sprintf("send %d messages to queue %q", len(all), queues[0])
	}
	switch session.State(err) {
	case session.UndefinedTable:
		return fmt.Errorf("%s: %w (%s, or start its endpoint): %w", what, ErrNoQueue, c.createQueue(queues), err)
	case session.UniqueViolation:
		return fmt.Errorf("%s: the queue's sequence gives out numbers that its messages have, as after a restore (sqlq doctor --fix --schema %s): %w", what, shellWord(c.config.Schema), err)
	case session.InsufficientPrivilege:
		return fmt.Errorf("%s: %w (%s): %w", what, ErrPermissionDenied, c.grant("producer", queues...), err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// createQueue advises how a queue is made, or, of several, the one that is missing.
func (c *Client) createQueue(queues []string) string {
	if len(queues) == 1 {
		return fmt.Sprintf("make it with: sqlq queue create %s --schema %s", queues[0], shellWord(c.config.Schema))
	}
	return fmt.Sprintf("make the one that is missing with: sqlq queue create QUEUE --schema %s", shellWord(c.config.Schema))
}

// queuesOf lists the queues that commands go to, each once, in order of appearance.
func queuesOf(all []sending.Envelope) (queues []string) {
	for _, e := range all {
		if e.Queue != "" && !slices.Contains(queues, e.Queue) {
			queues = append(queues, e.Queue)
		}
	}
	return queues
}

// quoted lists names for an error.
func quoted(names []string) string {
	q := make([]string, len(names))
	for i, name := range names {
		q[i] = strconv.Quote(name)
	}
	return strings.Join(q, ", ")
}

// routes says which queue the commands of a type go to. Events have no route: their subscribers are in the database,
// where publish reads them in the publishing transaction, so that none is missed.
type routes struct {
	mu        sync.RWMutex
	byType    map[string]string
	otherwise string // where types without a route go; "": nowhere. Set for deliveries made by hand only
}

// declare adds the commands that endpoints of this process handle.
func (r *routes) declare(endpoints []Endpoint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	byType := maps.Clone(r.byType)
	if byType == nil {
		byType = map[string]string{}
	}
	for _, e := range endpoints {
		for _, h := range e.Handlers {
			if !h.event {
				byType[h.messageType] = e.Name
			}
		}
	}
	r.byType = byType
}

// route returns the queue of a command, "" for an event, or says why there is none.
func (c *Client) route(m Message, publish bool, to string) (string, error) {
	_, event := m.(Event)
	if rawOf(m) != nil {
		event = publish
	}
	switch {
	case publish && !event:
		return "", fmt.Errorf("%w: send it; if it is an event, give its type the method IsEvent()", ErrNotEvent)
	case publish && to != "":
		return "", fmt.Errorf("%w: an event goes to its subscribers, without To(%q)", ErrIsEvent, to)
	case publish:
		return "", nil
	case event:
		return "", fmt.Errorf("%w: publish it", ErrIsEvent)
	case to != "":
		return to, nil
	}
	c.routes.mu.RLock()
	queue := c.routes.byType[m.MessageType()]
	c.routes.mu.RUnlock()
	if queue = cmp.Or(queue, c.routes.otherwise); queue == "" {
		return "", fmt.Errorf("%w: add its type to Config.Routes, use To(queue), or run its endpoint in this process", ErrNoRoute)
	}
	return queue, nil
}
