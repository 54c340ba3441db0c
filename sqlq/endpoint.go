package sqlq

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/session"
)

// Endpoint is a named service that handles messages. Its queue has the same name. Processes that run the same endpoint
// share its messages.
type Endpoint struct {
	// Name of the endpoint and its queue.
	// Default: none, it must be given. Unit: 1 to 60 ASCII letters, digits, dots, hyphens and underscores. Cost: a table
	// in the database.
	Name string

	// MustExist refuses to run if the queue does not exist, instead of creating it: with ErrNoQueue, and before any queue or
	// subscription of the other endpoints is made. It is for programs whose queues are created by a deployment, where a mistyped name
	// would otherwise be a new queue that nobody sends to.
	// Default: off, a missing queue is created. Cost: none.
	MustExist bool

	// Handlers has one handler for each message type. Run subscribes the queue to the events among them. A subscription stays until
	// an operator removes it, even if the handler is removed.
	// Default: none, at least one is required, or Otherwise. Cost: for an event: a copy of every such event.
	Handlers []Handler

	// Otherwise handles the messages of all types that have no handler in Handlers. HandleRaw or HandleRawTx with an empty type makes
	// it. With it no message waits for a process that knows its type (UnknownWait). If the messages of one of these types fail one
	// after the other, that type is slowed down by itself; this goes for the first 1,000 types that a process receives.
	// Default: none, such messages wait and then fail. Unit: a Handler. Cost: none.
	Otherwise Handler

	// Subscribe names event types to which Run subscribes the queue, besides those of Handlers that have a Go type: for handlers made
	// by HandleRaw, and for Otherwise. As with Handlers, a subscription stays.
	// Default: none. Unit: event types. Cost: a copy of every such event.
	Subscribe []string

	// Concurrency is how many messages are handled at a time in this process; a call of a batch handler counts as one. HandleTx handlers
	// are also limited by Config.ReceiveConnections.
	// Default: 4 × GOMAXPROCS. Unit: messages, up to 10,000. Cost: more: more memory, and more of whatever handlers use,
	// such as connections of their own.
	Concurrency int

	// SlowAfter is how long a handler may run before the log names it, once, and the instance table counts it for
	// operators. It is checked with each heartbeat, every 5 s or three times in Config.LeaseTime; handlers that
	// take less than Config.HoldLimit are not reported.
	// Default: 30 s. Negative: no limit. Cost: a line in the log for each.
	SlowAfter time.Duration

	// Retry says when a failed message is retried.
	// Default: that of RetryPolicy. Cost: an attempt each time.
	Retry RetryPolicy

	// Breaker says when the messages of one type are slowed down because they fail one after the other.
	// Default: that of BreakerPolicy. Unit: policy. Cost: while a type is slowed down its messages wait, also those that would succeed.
	Breaker BreakerPolicy

	// Settled is called after each commit that settles deliveries, once for each of them, with what has become of the message: handled,
	// to be retried, given back, or failed for good. See Settled for what it may rely on.
	// Default: none. Unit: a func. Cost: its time. It does not keep handlers waiting; but while more than 1,000 outcomes wait for it
	// the endpoint fetches nothing.
	Settled func(ctx context.Context, s Settled)

	// UnknownWait is how long a message waits if the endpoint has no handler for its type, before it fails with
	// ErrUnknownType. In a rolling deployment the next version may know the type, and gets the message as soon as one of its processes
	// receives it. The message moves to the delayed table, for a second at first and then for up to a minute at a time, and no
	// attempt is counted; sqlq delayed ls says why it is there.
	// Default: 10 min. Unit: duration, up to 100 years. Negative: it fails at once. Cost: longer: a message that will never have a
	// handler reaches the error table later. Each pause moves the message to the delayed table and back.
	UnknownWait time.Duration

	// AtMostOnce commits the removal of a message before its handler runs: it is never handled twice, and it is lost if the
	// process or connection dies. It is for messages that may be lost but must not be repeated. If the handler fails, the
	// message goes to the error table after this one attempt, and an operator may replay it; Retry must be empty.
	// What a handler sends through its delivery is stored after it has succeeded. HandleTx handlers are refused: they
	// cannot share a transaction with a removal that is already committed.
	//
	// A fetch takes no more messages than there are free slots, and commits, so that little is lost with a process. Slow handlers
	// need no lease.
	// Default: off. Cost: a commit for every few messages, so that short handlers reach only a fraction of the messages per second
	// that they reach without it.
	AtMostOnce bool

	// Deduplicate is a window of time: a message whose id this endpoint has handled within it is removed without being
	// handled. It is for senders that send again, with the same WithID, when they do not know whether the first send succeeded.
	//
	// If several messages with the same id are there at the same time, one is handled and the others come back a second later. A
	// message that failed, expired or was given back does not count as handled. Messages are recognised, not effects:
	// a Handle handler whose message was not settled, because its process died, runs again for the same message. With
	// HandleTx the effects are in the same transaction, and so happen once for each id.
	//
	// Ids are kept for up to twice 10 minutes, 3 hours, 2 days or 31 days, the shortest that the window fits in, and then truncated
	// away. Each of these has its own tables, so all processes of the endpoint must use the same window, and changing it
	// may forget what was handled before.
	// Default: off. Unit: duration, at most 31 days. Cost: a row in the inbox for each message, 240 bytes of WAL, three times
	// the database's CPU time for receiving, and another round trip for each fetch.
	Deduplicate time.Duration

	// TxBatch is the maximum number of messages with HandleTx handlers that share a transaction. Set it to 1 if a handler must be alone
	// in its transaction whatever it does: if functions or triggers change settings that the library does not check, or
	// if handlers leave constraints deferred. Handlers whose own SQL changes settings are detected without it: see HandleTx.
	// A call of a HandleBatchTx handler counts as one, however many messages it gets.
	// Default: 60. Unit: messages, 1 to 60. Cost: lower: more transactions, so fewer messages per second; 1 reaches about a tenth.
	TxBatch int

	// Middleware wraps each handler, inside Config.HandleMiddleware; the first is the outermost. Batch handlers are not wrapped: see
	// Batch.NoMiddleware.
	// Default: none. Cost: its time, for each attempt.
	Middleware []func(next HandleFunc) HandleFunc

	pulling *pulling // hands its messages to calls of Receive; nil: it has handlers
}

func (e Endpoint) withDefaults() Endpoint {
	if e.Concurrency == 0 {
		e.Concurrency = 4 * runtime.GOMAXPROCS(0)
	}
	if e.TxBatch == 0 {
		e.TxBatch = maxTxBatch
	}
	if e.SlowAfter == 0 {
		e.SlowAfter = 30 * time.Second
	}
	e.Breaker = e.Breaker.withDefaults(e.Concurrency)
	if e.UnknownWait == 0 {
		e.UnknownWait = 10 * time.Minute
	}
	if !e.AtMostOnce { // the empty policy has one attempt
		e.Retry = e.Retry.withDefaults()
	}
	e.Handlers = slices.Clone(e.Handlers)
	for i := range e.Handlers {
		h := &e.Handlers[i]
		h.event = h.event || h.raw && slices.Contains(e.Subscribe, h.messageType)
	}
	return e
}

// maxConcurrency is the most messages that an endpoint handles at a time.
const maxConcurrency = 10_000

// allHandlers yields the Handlers and, if there is one, Otherwise.
func (e *Endpoint) allHandlers() iter.Seq[*Handler] {
	return func(yield func(*Handler) bool) {
		for i := range e.Handlers {
			if !yield(&e.Handlers[i]) {
				return
			}
		}
		if e.Otherwise.run != nil {
			yield(&e.Otherwise)
		}
	}
}

// events returns the event types to which Run subscribes the queue, each once.
func (e *Endpoint) events() (events []string) {
	for _, h := range e.Handlers {
		if h.event {
			events = append(events, h.messageType)
		}
	}
	for _, event := range e.Subscribe {
		if !slices.Contains(events, event) {
			events = append(events, event)
		}
	}
	return events
}

// validate checks an endpoint, with its defaults, by itself.
func (e Endpoint) validate(c Config) error {
	var errs []error
	errs = append(errs, checkQueueName(e.Name), e.Retry.validate(), e.Breaker.validate())
	if e.Concurrency < 0 || e.Concurrency > maxConcurrency {
		errs = append(errs, fmt.Errorf("its Concurrency is %d: it must be from 1 to 10,000", e.Concurrency))
	}
	if e.TxBatch < 1 || e.TxBatch > maxTxBatch {
		errs = append(errs, fmt.Errorf("its TxBatch is %d: it must be from 1 to %d", e.TxBatch, maxTxBatch))
	}
	if e.AtMostOnce && !e.Retry.isEmpty() {
		errs = append(errs, errors.New("AtMostOnce and a Retry policy: a message that is handled at most once has only one attempt; leave Retry empty, or turn AtMostOnce off"))
	}
	if e.UnknownWait > maxDelay {
		errs = append(errs, fmt.Errorf("its UnknownWait is %v: it must be at most 100 years", e.UnknownWait))
	}
	switch {
	case e.Deduplicate < 0 || e.Deduplicate > maxWindow:
		errs = append(errs, fmt.Errorf("its Deduplicate is %v: it must be from 0, which is off, to 31 days", e.Deduplicate))
	case e.Deduplicate > 0 && e.AtMostOnce:
		errs = append(errs, errors.New("AtMostOnce and Deduplicate: a message that is handled at most once is removed before it is known to be handled; choose one of them"))
	}
	if len(e.Handlers) == 0 && e.Otherwise.run == nil {
		errs = append(errs, errors.New("no handler: add at least one to Handlers, or set Otherwise"))
	}
	if o := e.Otherwise; o.run != nil {
		if o.messageType != "" {
			errs = append(errs, fmt.Errorf("its Otherwise is a handler for message type %q, but it must take every type: add it to Handlers, or make it with HandleRaw and an empty type", o.messageType))
		}
		if e.AtMostOnce && o.inTx {
			errs = append(errs, errors.New("AtMostOnce and an Otherwise made by HandleRawTx: its transaction would remove the message, but with AtMostOnce the removal is committed before; use HandleRaw, or turn AtMostOnce off"))
		}
	}
	errs = append(errs, e.validateSubscribe(c)...)
	errs = append(errs, e.validateBatches(c)...)
	seen := map[string]bool{}
	for _, h := range e.Handlers {
		if h.run == nil {
			errs = append(errs, errors.New("an empty Handler: make it with Handle or HandleTx"))
			continue
		}
		if h.raw && h.messageType == "" {
			errs = append(errs, errors.New("a raw handler without a message type in Handlers: pass HandleRaw the type, or set it as Otherwise"))
			continue
		}
		if seen[h.messageType] {
			errs = append(errs, fmt.Errorf("two handlers for message type %q: an endpoint has one for each type; combine them or, for an event, use two endpoints", h.messageType))
		}
		seen[h.messageType] = true
		if e.AtMostOnce && h.inTx {
			errs = append(errs, fmt.Errorf("AtMostOnce and a HandleTx handler for %q: its transaction would remove the message, but with AtMostOnce the removal is committed before; use Handle, or turn AtMostOnce off", h.messageType))
		}
		errs = append(errs, checkTypeName(h.messageType))
		if queue, routed := c.Routes[h.messageType]; routed && h.event {
			errs = append(errs, fmt.Errorf("event %q is routed to queue %q in Config.Routes: events have subscribers, not a route; remove it there", h.messageType, queue))
		} else if routed && queue != e.Name {
			errs = append(errs, fmt.Errorf("command %q is routed to queue %q in Config.Routes, not to this endpoint; fix the route, or move the handler there", h.messageType, queue))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w %q: %w", ErrInvalidEndpoint, e.Name, err)
	}
	return nil
}

// validateSubscribe returns what is wrong with Subscribe.
func (e Endpoint) validateSubscribe(c Config) (errs []error) {
	for _, event := range e.Subscribe {
		if err := checkTypeName(event); err != nil {
			errs = append(errs, fmt.Errorf("its Subscribe: %w", err))
			continue
		}
		i := slices.IndexFunc(e.Handlers, func(h Handler) bool { return h.messageType == event })
		queue, routed := c.Routes[event]
		switch {
		case i >= 0 && !e.Handlers[i].event:
			errs = append(errs, fmt.Errorf("its Subscribe names %q, whose handler is for a command: if it is an event, give its type the method IsEvent()", event))
		case i < 0 && e.Otherwise.run == nil:
			errs = append(errs, fmt.Errorf("its Subscribe names %q, but nothing handles it: add a handler with HandleRaw, or set Otherwise", event))
		case i < 0 && routed:
			errs = append(errs, fmt.Errorf("its Subscribe names %q, which is routed to queue %q in Config.Routes: events have subscribers, not a route; remove it there", event, queue))
		}
	}
	return errs
}

// validateEndpoints checks what Run was given as a whole.
func validateEndpoints(c Config, endpoints []Endpoint) error {
	if len(endpoints) == 0 {
		return fmt.Errorf("%w: none given; pass at least one", ErrInvalidEndpoint)
	}
	var errs []error
	names, handledBy := map[string]bool{}, map[string]string{}
	for _, e := range endpoints {
		errs = append(errs, e.validate(c))
		if names[e.Name] {
			errs = append(errs, fmt.Errorf("%w %q: given twice; to handle more messages at a time raise its Concurrency", ErrInvalidEndpoint, e.Name))
		}
		names[e.Name] = true
		for _, h := range e.Handlers {
			if other, taken := handledBy[h.messageType]; taken && other != e.Name && !h.event {
				errs = append(errs, fmt.Errorf("%w %q: command %q has a handler in endpoint %q too; a command has one receiver; remove one", ErrInvalidEndpoint, e.Name, h.messageType, other))
			}
			handledBy[h.messageType] = e.Name
		}
	}
	return errors.Join(errs...)
}

// requireQueues makes sure that the queues of those endpoints exist that must not create them.
func requireQueues(ctx context.Context, c *Client, endpoints []Endpoint) error {
	var missing []string
	for _, e := range endpoints {
		if !e.MustExist {
			continue
		}
		exists, _, err := c.store.Queues.MayReceive(ctx, c.pool, e.Name)
		if err != nil {
			return fmt.Errorf("look for queue %q: %w", e.Name, session.Unreachable(err))
		}
		if !exists {
			missing = append(missing, e.Name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("receive from %s: %w, and it is not to be created here: correct the name, or have it made with: sqlq queue create %s --schema %s",
		quoted(missing), ErrNoQueue, strings.Join(missing, " "), shellWord(c.config.Schema))
}
