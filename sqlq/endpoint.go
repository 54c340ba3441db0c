package sqlq

import (
	"errors"
	"fmt"
	"runtime"
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
	// Default: none, one at least must be given. Cost: of a handler of an event: a copy of every such event.
	Handlers []Handler

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

	// Middleware is put around each handler, inside of Config.HandleMiddleware, the first outermost.
	// Default: none. Cost: its time, for each attempt.
	Middleware []func(next HandleFunc) HandleFunc
}

func (e Endpoint) withDefaults() Endpoint {
	if e.Concurrency == 0 {
		e.Concurrency = 4 * runtime.GOMAXPROCS(0)
	}
	if e.SlowAfter == 0 {
		e.SlowAfter = 30 * time.Second
	}
	e.Retry = e.Retry.withDefaults()
	return e
}

// validate checks an endpoint, with its defaults, by itself.
func (e Endpoint) validate(c Config) error {
	var errs []error
	errs = append(errs, checkQueueName(e.Name), e.Retry.validate())
	if e.Concurrency < 0 || e.Concurrency > 10_000 {
		errs = append(errs, fmt.Errorf("its Concurrency is %d: it is from 1 to 10,000", e.Concurrency))
	}
	if len(e.Handlers) == 0 {
		errs = append(errs, errors.New("no handler: give Handlers at least one"))
	}
	seen := map[string]bool{}
	for _, h := range e.Handlers {
		if h.run == nil {
			errs = append(errs, errors.New("an empty Handler: make it with Handle or HandleTx"))
			continue
		}
		if seen[h.messageType] {
			errs = append(errs, fmt.Errorf("two handlers for message type %q: an endpoint has one; put the work in one, or, of an event, in two endpoints", h.messageType))
		}
		seen[h.messageType] = true
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
