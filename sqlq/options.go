package sqlq

import (
	"fmt"
	"time"
)

// SendOption changes how one message is sent or published: [To], [Delay], [At], [ExpiresIn], [WithHeader], [WithID],
// [WithCorrelationID], [WithReceipt], [Immediately]. The send returns an error for invalid ones.
type SendOption func(*sendOptions)

type sendOptions struct {
	to          string
	addressed   bool
	delay       time.Duration
	delayed     bool
	at          time.Time
	timed       bool
	ttl         time.Duration
	expires     bool
	id          ID
	correlation string
	headers     Headers
	immediately bool
	receipt     *Receipt
}

// To sends a command to a queue, whatever its route says. An event cannot be sent to one queue.
// Default: the command's route. Unit: the name of a queue. Cost: none.
func To(queue string) SendOption {
	return func(o *sendOptions) { o.to, o.addressed = queue, true }
}

// Delay defers the message by d, 0 to 100 years, counted from the send by the database's clock. An event goes to the
// queues that are subscribed when it is published.
// Default: at once. Cost: the message is written twice, to the delayed table and to its queue.
func Delay(d time.Duration) SendOption {
	return func(o *sendOptions) { o.delay, o.delayed = d, true }
}

// At defers the message to a point in time, from now to 100 years ahead. Up to a minute ago counts as now, because clocks
// differ. The message is due by the database's clock. At and Delay together are ErrInvalidTime.
// Default: at once. Unit: a point in time. Cost: that of Delay.
func At(t time.Time) SendOption { return func(o *sendOptions) { o.at, o.timed = t, true } }

// ExpiresIn gives the message a time to live, counted from the send by the database's clock. After that the message is not handled,
// not even for another attempt: it is removed, and counted (EndpointStats.Expired). A time to live that ends
// before the time of Delay or At is ErrInvalidTime.
// Default: it does not expire. Unit: duration, more than 0, at most 100 years. Cost: none.
func ExpiresIn(d time.Duration) SendOption {
	return func(o *sendOptions) { o.ttl, o.expires = d, true }
}

// WithHeader adds a header; of two with the same name the last one counts. See [Headers] for what is allowed.
// Default: only the library's own. Unit: a name and a text. Cost: its bytes, in the message and in the WAL.
func WithHeader(name, value string) SendOption {
	return func(o *sendOptions) {
		if o.headers == nil {
			o.headers = Headers{}
		}
		o.headers[name] = value
	}
}

// WithID sets the message's id, for senders that may send the same message twice, because they do not know whether the
// first send succeeded. Both are stored; an endpoint with a window (Endpoint.Deduplicate) handles one of them.
// Default: a new UUIDv7. Unit: a UUID. Cost: none.
func WithID(id ID) SendOption { return func(o *sendOptions) { o.id = id } }

// WithCorrelationID sets what the message is about, for example an order number. Messages that its handlers send
// inherit it.
// Default: the first message's id. Unit: UTF-8 text of at most 1,000 bytes. Cost: its bytes, in each of these messages.
func WithCorrelationID(id string) SendOption { return func(o *sendOptions) { o.correlation = id } }

// Immediately allows Client.Send, SendMany, SendBatch and Publish inside a handler: the message is sent whether or not the
// handler succeeds, and once for each attempt.
// Default: such a call is refused with ErrInHandler. Unit: on or off. Cost: a transaction of its own.
func Immediately() SendOption { return func(o *sendOptions) { o.immediately = true } }

// receiptOf returns where the options want a receipt; nil: they do not.
func receiptOf(options []SendOption) *Receipt {
	if len(options) == 0 {
		return nil
	}
	var o sendOptions
	for _, option := range options {
		option(&o)
	}
	return o.receipt
}

func collect(options []SendOption) (o sendOptions, err error) {
	for _, option := range options {
		option(&o)
	}
	if o.delay < 0 || o.delay > maxDelay {
		return o, fmt.Errorf("%w: delay %v: it must be from 0 to 100 years", ErrInvalidTime, o.delay)
	}
	if o.timed && o.delayed {
		return o, fmt.Errorf("%w: both Delay and At: use one", ErrInvalidTime)
	}
	// A minute of grace, for clocks that differ: what is due already is handled at once.
	if d := time.Until(o.at); o.timed && (d < -time.Minute || d > maxDelay) {
		return o, fmt.Errorf("%w: At %v: it must be from now to 100 years ahead", ErrInvalidTime, o.at)
	}
	if o.expires && (o.ttl <= 0 || o.ttl > maxDelay) {
		return o, fmt.Errorf("%w: time to live %v: it must be more than 0 and at most 100 years", ErrInvalidTime, o.ttl)
	}
	if o.expires && (o.delayed || o.timed) {
		if wait := max(o.delay, time.Until(o.at)); wait > 0 && o.ttl <= wait {
			return o, fmt.Errorf("%w: it would expire before it is ready: its time to live is %v from the send, and it waits for %v", ErrInvalidTime, o.ttl, wait)
		}
	}
	if o.addressed {
		if err := checkQueueName(o.to); err != nil {
			return o, err
		}
	}
	if err := checkHeaders(o.headers); err != nil {
		return o, err
	}
	if len(o.correlation) > maxCorrelationID || cleanText(o.correlation) != o.correlation {
		return o, fmt.Errorf("%w: correlation id %.100q of %d bytes is not UTF-8 text without NUL of at most %d bytes", ErrInvalidName, o.correlation, len(o.correlation), maxCorrelationID)
	}
	return o, nil
}
