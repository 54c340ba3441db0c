package sqlq

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/sending"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// Observer is called with what a Client does, for spans, metrics and test probes. A func that is nil costs nothing,
// and neither does a Config without an Observer.
//
// The funcs are called on the library's own goroutines, concurrently for different messages, and outside of its locks. Messages wait
// for them: a handler waits for Begun and Decided, and while Fetched and Settled run, a receive connection is
// idle, with the rows of its batch locked. So they must be fast, must not send, and must not end their goroutine. A panic is
// recovered, and logged once for each func; it does not change what happens to a message.
//
// The order for one message is: Sending, then Sent or Published; in the receiver Fetched, then Begun and Decided for each attempt, and
// Settled after the commit. Each Begun is followed by exactly one Decided, on the same goroutine unless the handler has ended
// it. Further calls of Decided come without a Begun: when the outcome is known without the handler (an unknown type, a time to live
// that has passed), and when the server refuses to settle what was decided; the last one counts.
type Observer struct {
	// Sending is called before a message is stored, after the SendMiddleware. What it adds to Headers, for example a trace context,
	// travels with the message, and is checked like the sender's headers. The context that it returns must be derived from ctx. It is
	// used for the statement that stores the message, unless that is shared with other sends, and for Sent or Published.
	Sending func(ctx context.Context, m ObservedSend) context.Context
	// Sent is called when a command was stored, or could not be, with Err. What a handler sends through its delivery is stored when its
	// message is settled; for it Sent is called when it has been gathered.
	Sent func(ctx context.Context, m ObservedSend)
	// Published is like Sent, for an event.
	Published func(ctx context.Context, m ObservedSend)

	// Fetched is called when a fetch has returned messages.
	Fetched func(ctx context.Context, f ObservedFetch)
	// Begun is called before each attempt, immediate retries included, outside of all middleware. The handler and its middleware get
	// the context that it returns, which must be derived from ctx. So do the statements of a HandleTx handler, if it
	// passes the context on. It is called for each message that a call of a batch handler gets. If there are several, the handler gets
	// none of these contexts; what it sends through a delivery gets that of its message.
	Begun func(ctx context.Context, a ObservedAttempt) context.Context
	// Decided is called when the outcome of an attempt is known. ctx is the handler's or, if the handler was not reached,
	// that of Begun; it may have ended. Use a key of your own to find a value in it: middleware may have added others.
	Decided func(ctx context.Context, a ObservedAttempt)
	// Settled is called when outcomes have been committed. Messages of an AtMostOnce endpoint that were handled without
	// sending anything need no settling.
	Settled func(ctx context.Context, s ObservedSettle)
	// Leased is called when messages whose handlers run for longer than Config.HoldLimit have been leased.
	Leased func(ctx context.Context, l ObservedLease)

	// Woken is called when an endpoint that may be asleep is woken.
	Woken func(ctx context.Context, w ObservedWake)
	// LeaderGained is called when this process becomes the leader, which does the housekeeping of its schema, and LeaderLost when it
	// no longer is: it has handed over the lead, or lost its connection.
	LeaderGained, LeaderLost func(ctx context.Context, l ObservedLead)
}

// ObservedSend is a message on its way out.
type ObservedSend struct {
	ID      ID      // stays the same wherever the message goes
	Type    string  // the message type
	Event   bool    // it is published, not sent
	Queue   string  // where a command goes; "" for an event
	Size    int     // of the body, in bytes
	Headers Headers // the sender's; Sending may add to them; nil afterwards

	Batch    int    // how many messages the call stores together: 1, except for SendMany and SendBatch; 0 in Sending
	Gathered bool   // a handler sends it through its delivery: it is stored when that is settled
	Endpoint string // of the handler that sends it; "" outside of handlers
	Handling ID     // the message which that handler handles; zero outside of handlers
	Err      error  // why it was not stored; nil in Sending
}

// ObservedFetch is the result of one fetch.
type ObservedFetch struct {
	Endpoint string // whose queue it was
	Messages int    // at least 1
	ByLease  bool   // they were leased at once, for example after a crash
}

// ObservedAttempt is one attempt to handle a message.
type ObservedAttempt struct {
	Endpoint string    // that handles it; also the queue
	ID       ID        // of the message
	Type     string    // the message type
	Headers  Headers   // as in Incoming; do not change them
	SentAt   time.Time // by the database's clock
	Size     int       // of the body, in bytes
	Attempt  int       // 1 for the first; 0 in Decided if none was made
	InTx     bool      // the handler was made by HandleTx

	Outcome Outcome       // what happens to the message; "" in Begun
	Delay   time.Duration // for OutcomeRetry and OutcomeWait: until it comes back; 0: at once
	Err     error         // the error of the attempt; nil in Begun
}

// Outcome is what happens to a message after an attempt.
type Outcome string

// The outcomes.
const (
	OutcomeComplete  Outcome = "complete"  // handled; it is removed
	OutcomeRetry     Outcome = "retry"     // it failed, and is retried at once or after Delay
	OutcomeFail      Outcome = "fail"      // it failed, and goes to the error table
	OutcomeWait      Outcome = "wait"      // it comes back after Delay, 0 for at once, and no attempt was counted
	OutcomeExpired   Outcome = "expired"   // its time to live has passed; it is removed
	OutcomeDuplicate Outcome = "duplicate" // a message with its id was handled within the window; it is removed
	OutcomeUndone    Outcome = "undone"    // the attempt was undone and nothing is decided: it comes back, or the next Decided has the outcome
)

// ObservedSettle is what one transaction has settled.
type ObservedSettle struct {
	Endpoint   string        // whose messages they are
	Handled    int           // removed, because their handlers have succeeded
	Retried    int           // moved to the delayed table for a retry
	Waiting    int           // likewise, without counting an attempt
	Failed     int           // moved to the error table
	Expired    int           // removed, because their time to live had passed
	Duplicates int           // removed, because their id was handled before
	Leased     int           // leased, because their handlers go on
	Sent       int           // stored, because handlers sent or published them
	Took       time.Duration // from gathering the outcomes until the commit was answered
}

// ObservedLease is a number of messages that were leased together.
type ObservedLease struct {
	Endpoint string // whose handlers are slow
	Messages int    // at least 1
}

// ObservedWake says what has woken an endpoint.
type ObservedWake struct {
	Endpoint string  // the endpoint, which now looks for messages
	By       WokenBy // what has woken it
}

// WokenBy says what has woken an endpoint.
type WokenBy string

// What wakes an endpoint.
const (
	WokenByNotification WokenBy = "notification" // from another process
	WokenByThisProcess  WokenBy = "process"      // this process has sent a message itself
	WokenByPolling      WokenBy = "polling"      // polling has found messages
)

// ObservedLead identifies the lead of a schema.
type ObservedLead struct {
	Schema string // whose housekeeping it is
}

// observing is an Observer in use; nil: there is none. Its methods are called whether there is or not.
type observing struct {
	Observer
	log    *slog.Logger
	said   sync.Mutex
	broken map[string]bool // funcs whose panic was logged
}

func newObserving(o *Observer, log *slog.Logger) *observing {
	if o == nil {
		return nil
	}
	return &observing{Observer: *o, log: log, broken: map[string]bool{}}
}

// caught is deferred around each call of an Observer's func.
func (o *observing) caught(name string) {
	v := recover()
	if v == nil {
		return
	}
	o.said.Lock()
	said := o.broken[name]
	o.broken[name] = true
	o.said.Unlock()
	if !said {
		o.log.Error("sqlq: a func of Config.Observer panicked; what it does is not relied on, and it is not named again", "func", name, "panic", clip(fmt.Sprint(v), maxErrorText),
			"stack", clip(string(debug.Stack()), maxStack))
	}
}

// derived returns what an Observer made of a context, if a handler's context is still known by it.
func derived(of, made context.Context) context.Context {
	if made == nil || of.Value(handlerContext{}) != made.Value(handlerContext{}) {
		return of
	}
	return made
}

// sending is told of a message that is about to be stored; in is the delivery whose handler sends it, if one does.
func (o *observing) sending(ctx context.Context, out *Outgoing, event bool, in *Incoming) (made context.Context) {
	if o == nil || o.Sending == nil {
		return ctx
	}
	made = ctx
	defer o.caught("Sending")
	m := ObservedSend{ID: out.ID, Type: out.Type, Event: event, Queue: out.Queue, Size: len(out.Body), Headers: out.Headers}
	m.by(in)
	return derived(ctx, o.Observer.Sending(ctx, m))
}

func (m *ObservedSend) by(in *Incoming) {
	if in != nil {
		m.Gathered, m.Endpoint, m.Handling = true, in.Endpoint, in.stored.id
	}
}

// sent is told how the storing of a message ended, one of so many, and returns the error.
func (o *observing) sent(ctx context.Context, e *sending.Envelope, batch int, in *Incoming, err error) error {
	if o == nil {
		return err
	}
	tell, name := o.Sent, "Sent"
	if e.Queue == "" {
		tell, name = o.Published, "Published"
	}
	if tell == nil {
		return err
	}
	defer o.caught(name)
	m := ObservedSend{ID: e.ID, Type: e.Type, Event: e.Queue == "", Queue: e.Queue, Size: len(e.Body), Batch: batch, Err: err}
	m.by(in)
	tell(ctx, m)
	return err
}

func (o *observing) fetched(w *work, ms []store.Message) {
	if o == nil || o.Fetched == nil || len(ms) == 0 {
		return
	}
	defer o.caught("Fetched")
	o.Fetched(w.in.group.ctx, ObservedFetch{Endpoint: w.in.endpoint.Name, Messages: len(ms), ByLease: ms[0].Lease != 0})
}

// begun is told of an attempt, and returns the context for its handler.
func (o *observing) begun(ctx context.Context, d *delivery) (made context.Context) {
	if o == nil || o.Begun == nil {
		return ctx
	}
	made = ctx
	defer func() { d.ctx = made }()
	defer o.caught("Begun")
	return derived(ctx, o.Observer.Begun(ctx, d.observed(false)))
}

// decided is told what becomes of a message.
func (o *observing) decided(d *delivery) {
	if o == nil || o.Decided == nil {
		return
	}
	defer o.caught("Decided")
	a := d.observed(true)
	a.Outcome, a.Delay, a.Err = d.result()
	o.Observer.Decided(d.ctx, a)
}

// result returns what is decided of a delivery, in public terms.
func (d *delivery) result() (o Outcome, delay time.Duration, err error) {
	switch d.outcome.verdict {
	case complete:
		if d.claim == store.Duplicate {
			return OutcomeDuplicate, 0, nil
		}
		return OutcomeComplete, 0, nil
	case expire:
		return OutcomeExpired, 0, nil
	case fail:
		return OutcomeFail, 0, d.err
	case wait:
		return OutcomeWait, d.outcome.delay, d.err
	case giveBack:
		if d.outcome.chosen {
			return OutcomeWait, 0, d.err
		}
		return OutcomeUndone, 0, d.err
	default:
		return OutcomeRetry, d.outcome.delay, d.err
	}
}

// undone is told that an attempt has ended without a verdict.
func (o *observing) undone(d *delivery) {
	if o == nil || o.Decided == nil {
		return
	}
	defer o.caught("Decided")
	a := d.observed(true)
	a.Outcome = OutcomeUndone
	o.Observer.Decided(d.ctx, a)
}

func (d *delivery) observed(ended bool) ObservedAttempt {
	a := ObservedAttempt{Endpoint: d.batch.in.endpoint.Name, ID: d.stored.id, Type: d.stored.messageType, Headers: d.Headers, SentAt: time.UnixMicro(d.stored.sentAt),
		Size: len(d.stored.body), Attempt: d.made(), InTx: d.handler != nil && d.handler.inTx}
	if ended {
		a.Err = d.err
	}
	return a
}

// now is when something begins that is told with the time that it took.
func (o *observing) now() (began time.Time) {
	if o != nil && o.Settled != nil {
		began = time.Now()
	}
	return began
}

func (o *observing) settled(in *instance, s *settlement) {
	if o == nil || o.Settled == nil {
		return
	}
	defer o.caught("Settled")
	o.Settled(in.group.ctx, ObservedSettle{Endpoint: in.endpoint.Name, Handled: len(s.keys) + len(s.rows) + s.gone - s.inbox.duplicates - s.expired,
		Retried: len(s.retries) - s.waits, Waiting: s.waits, Failed: len(s.failures), Expired: s.expired, Duplicates: s.inbox.duplicates, Leased: len(s.leases),
		Sent: len(s.outgoing.messages), Took: time.Since(s.began)})
}

// leased is told which of the deliveries that were cut have a lease.
func (o *observing) leased(in *instance, leases map[int64]int64) {
	if o == nil || o.Leased == nil || len(leases) == 0 {
		return
	}
	defer o.caught("Leased")
	o.Leased(in.group.ctx, ObservedLease{Endpoint: in.endpoint.Name, Messages: len(leases)})
}

func (o *observing) woken(in *instance, by WokenBy) {
	if o == nil || o.Woken == nil {
		return
	}
	defer o.caught("Woken")
	o.Woken(in.group.ctx, ObservedWake{Endpoint: in.endpoint.Name, By: by})
}

// led is told that this process has begun to lead, or has ended to.
func (o *observing) led(ctx context.Context, schema string, leads bool) {
	if o == nil {
		return
	}
	tell, name := o.LeaderGained, "LeaderGained"
	if !leads {
		tell, name = o.LeaderLost, "LeaderLost"
	}
	if tell == nil {
		return
	}
	defer o.caught(name)
	tell(ctx, ObservedLead{Schema: schema})
}
