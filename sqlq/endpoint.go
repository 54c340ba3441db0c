package sqlq

import (
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"time"
)

// Endpoint is a named service that handles messages. Its queue bears its name; processes that run the same endpoint
// share its messages.
type Endpoint struct {
	// Name of the endpoint and its queue.
	// Default: none, it must be given. Unit: 1 to 60 ASCII letters, digits, dots, hyphens and underscores. Cost: a table
	// in the database.
	Name string

	// Handlers, one for each message type. Run subscribes the queue to the events among them; a subscription stays until
	// an operator removes it, also when the handler goes.
	// Default: none, one at least must be given, or Otherwise. Cost: of a handler of an event: a copy of every such event.
	Handlers []Handler

	// Otherwise handles messages of the types that none of Handlers is for, as they came: HandleRaw or HandleRawTx makes it, with an
	// empty type. Then no message waits for another version of the program that knows its type (UnknownWait). The first 1,000 of these
	// types that a process receives are slowed down each by itself when their messages fail one after the other, further ones are not.
	// Default: none, such messages wait and fail. Unit: a Handler. Cost: none.
	Otherwise Handler

	// Subscribe names event types that the queue is subscribed to besides those of Handlers that have a Go type: for handlers made by
	// HandleRaw, and for Otherwise. As with Handlers, a subscription stays.
	// Default: none. Unit: event types. Cost: a copy of every such event.
	Subscribe []string

	// Concurrency is how many messages are handled at a time in this process. HandleTx handlers are also bounded by
	// Config.ReceiveConnections.
	// Default: 4 × GOMAXPROCS. Unit: messages, up to 10,000. Cost: more: more memory, and more of whatever handlers use,
	// such as connections of their own.
	Concurrency int

	// SlowAfter is how long a handler may run before the log names it, once, and the instance table counts it for
	// operators. It is looked at with each heartbeat, every 5 s or three times in Config.LeaseTime, and what is shorter
	// than Config.HoldLimit does not show.
	// Default: 30 s. Negative: however long. Cost: a line in the log for each.
	SlowAfter time.Duration

	// Retry says when a failed message is tried again.
	// Default: that of RetryPolicy. Cost: an attempt each time.
	Retry RetryPolicy

	// UnknownWait is how long a message waits whose type no handler of the endpoint is for, before it fails with
	// ErrUnknownType: in a rolling deployment the next version may know it, and gets it as soon as one of its processes
	// receives it. The message moves to the delayed table, for a second at first and then for up to a minute at a time, and no
	// attempt is counted; sqlq delayed ls says why it is there.
	// Default: 10 min. Unit: duration, up to 100 years. Negative: it fails at once. Cost: longer: what nobody will ever handle
	// ends in the error table later. Each pause moves the message to the delayed table and back.
	UnknownWait time.Duration

	// AtMostOnce commits the removal of a message before its handler runs: it is never handled twice, and a message whose
	// process or connection dies is gone. For what must not be repeated and may be lost. A handler that fails puts its
	// message into the error table after this one attempt, from where an operator may replay it; Retry must be empty.
	// What a handler sends through its delivery is stored after it has succeeded. HandleTx handlers are refused: they
	// cannot share a transaction with a removal that is committed.
	//
	// No more messages are fetched than slots are free, a commit a fetch, so that little is lost with a process. Slow handlers
	// need no lease.
	// Default: off. Cost: a commit for each few messages, so that short handlers make a fraction of the messages a second
	// that they make without it.
	AtMostOnce bool

	// Deduplicate is a window of time: a message whose id this endpoint has handled within it is removed without being
	// handled. For senders that send again when they do not know whether the first time succeeded, with the same WithID.
	//
	// Of messages with one id that are there at the same time one is handled; the others come again a second later. What
	// failed, has expired or was given back does not count as handled. It is messages that are recognised, not effects:
	// a Handle handler whose message was not settled, because its process died, runs again for the same message. With
	// HandleTx the effects are in the same transaction, and so happen once for each id.
	//
	// Ids are kept for up to twice 10 minutes, 3 hours, 2 days or 31 days, whichever the window fits in, and then truncated
	// away. Each of these keeps its own, so all processes of the endpoint are to have the same window, and a change of it
	// may forget what was handled before.
	// Default: off. Unit: duration, at most 31 days. Cost: a row in the inbox for each message, 240 bytes of WAL, three times
	// the database's processor time for receiving, and a round trip more for each fetch.
	Deduplicate time.Duration

	// TxBatch is how many messages with HandleTx handlers share a transaction at most. Set it to 1 where a handler must be alone in
	// its transaction whatever it does: where functions or triggers change settings that the library does not look at, or
	// where handlers leave constraints deferred. Handlers whose own SQL changes settings are found out without it: see HandleTx.
	// Default: 60. Unit: messages, 1 to 60. Cost: less: more transactions, so fewer messages a second; 1 makes about a tenth.
	TxBatch int

	// Middleware is put around each handler, inside of Config.HandleMiddleware, the first outermost.
	// Default: none. Cost: its time, for each attempt.
	Middleware []func(next HandleFunc) HandleFunc
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

// events returns the event types that the queue is to be subscribed to, each once.
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
	errs = append(errs, checkQueueName(e.Name), e.Retry.validate())
	if e.Concurrency < 0 || e.Concurrency > 10_000 {
		errs = append(errs, fmt.Errorf("its Concurrency is %d: it is from 1 to 10,000", e.Concurrency))
	}
	if e.TxBatch < 1 || e.TxBatch > maxTxBatch {
		errs = append(errs, fmt.Errorf("its TxBatch is %d: it is from 1 to %d", e.TxBatch, maxTxBatch))
	}
	if e.AtMostOnce && (e.Retry.Immediate != 0 || e.Retry.Delays != nil || e.Retry.Jitter != 0) {
		errs = append(errs, errors.New("AtMostOnce and a Retry policy: a message that is handled at most once has one attempt; leave Retry empty, or AtMostOnce off"))
	}
	if e.UnknownWait > maxDelay {
		errs = append(errs, fmt.Errorf("its UnknownWait is %v: 100 years are the most", e.UnknownWait))
	}
	switch {
	case e.Deduplicate < 0 || e.Deduplicate > maxWindow:
		errs = append(errs, fmt.Errorf("its Deduplicate is %v: a window is from 0, which is off, to 31 days", e.Deduplicate))
	case e.Deduplicate > 0 && e.AtMostOnce:
		errs = append(errs, errors.New("AtMostOnce and Deduplicate: what is handled at most once is gone before anybody could say that it was handled; choose one"))
	}
	if len(e.Handlers) == 0 && e.Otherwise.run == nil {
		errs = append(errs, errors.New("no handler: give Handlers at least one, or Otherwise"))
	}
	if o := e.Otherwise; o.run != nil {
		if o.messageType != "" {
			errs = append(errs, fmt.Errorf("its Otherwise is a handler for message type %q, and is to take every type: put it into Handlers, or make it with HandleRaw and an empty type", o.messageType))
		}
		if e.AtMostOnce && o.inTx {
			errs = append(errs, errors.New("AtMostOnce and an Otherwise made by HandleRawTx: its transaction removes the message, and at most once means that the removal is committed before; make it with HandleRaw, or leave AtMostOnce off"))
		}
	}
	errs = append(errs, e.validateSubscribe(c)...)
	seen := map[string]bool{}
	for _, h := range e.Handlers {
		if h.run == nil {
			errs = append(errs, errors.New("an empty Handler: make it with Handle or HandleTx"))
			continue
		}
		if h.raw && h.messageType == "" {
			errs = append(errs, errors.New("a raw handler without a message type in Handlers: name the type, or make it the endpoint's Otherwise"))
			continue
		}
		if seen[h.messageType] {
			errs = append(errs, fmt.Errorf("two handlers for message type %q: an endpoint has one; put the work in one, or, of an event, in two endpoints", h.messageType))
		}
		seen[h.messageType] = true
		if e.AtMostOnce && h.inTx {
			errs = append(errs, fmt.Errorf("AtMostOnce and a HandleTx handler for %q: its transaction removes the message, and at most once means that the removal is committed before; make it with Handle, or leave AtMostOnce off", h.messageType))
		}
		errs = append(errs, checkTypeName(h.messageType))
		if queue, routed := c.Routes[h.messageType]; routed && h.event {
			errs = append(errs, fmt.Errorf("event %q is routed to queue %q in Config.Routes: events have subscribers, not a route; remove it there", h.messageType, queue))
		} else if routed && queue != e.Name {
			errs = append(errs, fmt.Errorf("command %q is routed to queue %q in Config.Routes, not to this endpoint; mend the route, or move the handler there", h.messageType, queue))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w %q: %w", ErrInvalidEndpoint, e.Name, err)
	}
	return nil
}

// validateSubscribe says what is wrong with Subscribe.
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
			errs = append(errs, fmt.Errorf("its Subscribe names %q, whose handler is one for a command: if it is an event, give its type the method IsEvent()", event))
		case i < 0 && e.Otherwise.run == nil:
			errs = append(errs, fmt.Errorf("its Subscribe names %q, and nothing handles it: give it a handler with HandleRaw, or the endpoint an Otherwise", event))
		case i < 0 && routed:
			errs = append(errs, fmt.Errorf("its Subscribe names %q, which is routed to queue %q in Config.Routes: events have subscribers, not a route; remove it there", event, queue))
		}
	}
	return errs
}

// validateEndpoints checks what Run was given as a whole.
func validateEndpoints(c Config, endpoints []Endpoint) error {
	if len(endpoints) == 0 {
		return fmt.Errorf("%w: none given; name at least one", ErrInvalidEndpoint)
	}
	var errs []error
	names, handledBy := map[string]bool{}, map[string]string{}
	for _, e := range endpoints {
		errs = append(errs, e.validate(c))
		if names[e.Name] {
			errs = append(errs, fmt.Errorf("%w %q: given twice; for more at a time raise its Concurrency", ErrInvalidEndpoint, e.Name))
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
