package sqlq

import (
	"fmt"
	"time"
)

// SendOption changes how one message is sent or published.
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
}

// To sends a command to a queue whatever its route says. An event cannot be sent to one queue.
func To(queue string) SendOption {
	return func(o *sendOptions) { o.to, o.addressed = queue, true }
}

// Delay defers the message: it is handled d after the send, by the database's clock. 0 to 100 years. An event goes to
// those subscribed at the time of publishing.
func Delay(d time.Duration) SendOption {
	return func(o *sendOptions) { o.delay, o.delayed = d, true }
}

// At defers the message to a point in time, now to 100 years ahead. The database's clock decides when it has come.
func At(t time.Time) SendOption { return func(o *sendOptions) { o.at, o.timed = t, true } }

// ExpiresIn gives the message a time to live, counted from the send by the database's clock. It is not handled later,
// and removed without a trace.
func ExpiresIn(d time.Duration) SendOption {
	return func(o *sendOptions) { o.ttl, o.expires = d, true }
}

// WithHeader adds a header; see Headers for what may be in one.
func WithHeader(name, value string) SendOption {
	return func(o *sendOptions) {
		if o.headers == nil {
			o.headers = Headers{}
		}
		o.headers[name] = value
	}
}

// WithID gives the message its id, for senders that may send the same message twice, because they do not know whether the
// first time succeeded. Both are stored; an endpoint with a window (Endpoint.Deduplicate) handles one of them.
func WithID(id ID) SendOption { return func(o *sendOptions) { o.id = id } }

// WithCorrelationID sets what the message is about, an order number for example: UTF-8 text of at most 1,000 bytes. It follows along to the messages that
// its handlers send. Without it the first message's id does.
func WithCorrelationID(id string) SendOption { return func(o *sendOptions) { o.correlation = id } }

// Immediately lets Client.Send and its like be called inside of a handler: the message is sent whether the handler
// succeeds or not, and once for each attempt.
func Immediately() SendOption { return func(o *sendOptions) { o.immediately = true } }

func collect(options []SendOption) (o sendOptions, err error) {
	for _, option := range options {
		option(&o)
	}
	if o.delay < 0 || o.delay > maxDelay {
		return o, fmt.Errorf("%w: delay %v: it must be from 0 to 100 years", ErrInvalidTime, o.delay)
	}
	if o.timed {
		// A minute of grace, for clocks that differ: what is due already is handled at once.
		if d := time.Until(o.at); o.delayed || d < -time.Minute || d > maxDelay {
			if o.delayed {
				return o, fmt.Errorf("%w: both Delay and At: give one", ErrInvalidTime)
			}
			return o, fmt.Errorf("%w: At %v: it must be from now to 100 years ahead", ErrInvalidTime, o.at)
		}
	}
	if o.expires && (o.ttl <= 0 || o.ttl > maxDelay) {
		return o, fmt.Errorf("%w: time to live %v: it must be more than 0 and at most 100 years", ErrInvalidTime, o.ttl)
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
