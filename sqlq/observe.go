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

// Observer is told what a Client does, so that spans, metrics and test probes can be made of it. A func that is nil costs nothing,
// and a Config without an Observer neither.
//
// They are called by the library's own goroutines, at the same time for different messages, and outside of its locks. What they take
// is taken from the messages: a handler waits for Begun and Decided, and while Fetched and Settled run a receive connection stands
// still, with the rows of its batch locked. So they must be quick, and must not send. They must not end their goroutine. A panic is
// caught, and logged once for each func; it changes nothing of what becomes of a message.
//
// In order, for one message: Sending, then Sent or Published; at the receiver Fetched, then for each attempt Begun and Decided, and
// after the commit Settled. An attempt has exactly one Decided for its Begun, on the same goroutine unless the handler has ended that
// one. Further ones come without a Begun: where the verdict is known without the handler (an unknown type, a time to live that has
// passed), and where the server refuses to settle what was decided; of several the last counts.
type Observer struct {
	// Sending is called before a message is stored, after the SendMiddleware. What it adds to Headers, a trace context for example,
	// travels with the message, and is checked as the sender's headers are. The context that it returns is that of the statement
	// that stores the message, where it is not shared with other sends, and of Sent or Published. It is to be derived from ctx.
	Sending func(ctx context.Context, m ObservedSend) context.Context
	// Sent is called when a command is stored, or is not, with Err. What a handler sends through its delivery is stored when its
	// message is settled: then Sent says that it has been gathered.
	Sent func(ctx context.Context, m ObservedSend)
	// Published is Sent for an event.
	Published func(ctx context.Context, m ObservedSend)

	// Fetched is called when a fetch has brought messages.
	Fetched func(ctx context.Context, f ObservedFetch)
	// Begun is called before each attempt, immediate retries included, outside of all middleware. The handler and its middleware get
	// the context that it returns, which is to be derived from ctx. A HandleTx handler's statements have it, too, where the handler
	// passes it on.
	Begun func(ctx context.Context, a ObservedAttempt) context.Context
	// Decided is called when it is known what becomes of a message after an attempt. ctx is the handler's, or where it did not come
	// to the handler that of Begun; it may have ended. Look in it for a value of your own: middleware has put others over it.
	Decided func(ctx context.Context, a ObservedAttempt)
	// Settled is called when verdicts have been committed. Messages of an endpoint that is AtMostOnce and that were handled without
	// sending anything need no settling.
	Settled func(ctx context.Context, s ObservedSettle)
	// Leased is called when messages whose handlers outlast Config.HoldLimit have been leased.
	Leased func(ctx context.Context, l ObservedLease)

	// Woken is called when an endpoint that may be asleep is woken.
	Woken func(ctx context.Context, w ObservedWake)
	// LeaderGained is called when this process begins to do the housekeeping of its schema, LeaderLost when it does so no more: it
	// has handed the lead over, or lost its connection.
	LeaderGained, LeaderLost func(ctx context.Context, l ObservedLead)
}

// ObservedSend is a message on its way out.
type ObservedSend struct {
	ID      ID      // by which it is known on its whole way
	Type    string  // the message type
	Event   bool    // it is published, not sent
	Queue   string  // where a command goes; "" of an event
	Size    int     // of the body, in bytes
	Headers Headers // the sender's; to be added to in Sending, nil afterwards

	Batch    int    // how many messages the call stores together: 1, but of SendMany and SendBatch; 0 in Sending
	Gathered bool   // a handler sends it through its delivery: it is stored when that is settled
	Endpoint string // of that handler; ""
	Handling ID     // the message that it handles; zero
	Err      error  // why it was not stored; nil in Sending
}

// ObservedFetch is what one fetch has brought.
type ObservedFetch struct {
	Endpoint string // whose queue it was
	Messages int    // at least 1
	ByLease  bool   // they were leased at once, as after a crash of a process
}

// ObservedAttempt is one attempt to handle a message.
type ObservedAttempt struct {
	Endpoint string    // that handles it; also the queue
	ID       ID        // of the message
	Type     string    // the message type
	Headers  Headers   // as Incoming has them; not to be changed
	SentAt   time.Time // by the database's clock
	Size     int       // of the body, in bytes
	Attempt  int       // 1 for the first; in Decided 0 where none was made
	InTx     bool      // the handler was made by HandleTx

	Outcome Outcome       // what becomes of it; "" in Begun
	Delay   time.Duration // of OutcomeRetry and OutcomeWait: until it comes again; 0: at once
	Err     error         // what the attempt failed with; nil in Begun
}

// Outcome is what becomes of a message after an attempt.
type Outcome string

// What can become of a message.
const (
	OutcomeComplete  Outcome = "complete"  // handled; it is removed
	OutcomeRetry     Outcome = "retry"     // it failed and is tried again, at once or after Delay
	OutcomeFail      Outcome = "fail"      // it failed, and goes to the error table
	OutcomeWait      Outcome = "wait"      // it comes again after Delay, and this was no attempt
	OutcomeExpired   Outcome = "expired"   // its time to live has passed; it is removed
	OutcomeDuplicate Outcome = "duplicate" // a message of its id was handled within the window; it is removed
	OutcomeUndone    Outcome = "undone"    // the attempt was undone and nothing is decided: it comes again, or the next Decided says what becomes of it
)

// ObservedSettle is what one transaction has settled.
type ObservedSettle struct {
	Endpoint   string        // whose messages they are
	Handled    int           // removed, because their handlers have succeeded
	Retried    int           // moved among the delayed, to be tried again
	Waiting    int           // likewise, without an attempt
	Failed     int           // moved to the error table
	Expired    int           // removed, because their time to live had passed
	Duplicates int           // removed, because their id was handled before
	Leased     int           // handed over to their lease, because their handlers go on
	Sent       int           // stored, because handlers sent or published them
	Took       time.Duration // from the gathering of the verdicts until the commit was answered
}

// ObservedLease is how many messages have been leased together.
type ObservedLease struct {
	Endpoint string // whose handlers run for long
	Messages int    // at least 1
}

// ObservedWake is who has woken an endpoint.
type ObservedWake struct {
	Endpoint string  // that looks for messages now
	By       WokenBy // what has woken it
}

// WokenBy is by what an endpoint was woken.
type WokenBy string

// What wakes an endpoint.
const (
	WokenByNotification WokenBy = "notification" // of another process
	WokenByThisProcess  WokenBy = "process"      // which has sent a message itself
	WokenByPolling      WokenBy = "polling"      // which has found messages
)

// ObservedLead is the lead of a schema.
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
	o.Fetched(w.in.run.hardCtx, ObservedFetch{Endpoint: w.in.endpoint.Name, Messages: len(ms), ByLease: ms[0].Lease != 0})
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
	a.Delay = d.outcome.delay
	switch d.outcome.verdict {
	case complete:
		a.Outcome, a.Err = OutcomeComplete, nil
		if d.claim == store.Duplicate {
			a.Outcome = OutcomeDuplicate
		}
	case expire:
		a.Outcome, a.Err = OutcomeExpired, nil
	case fail:
		a.Outcome = OutcomeFail
	case wait:
		a.Outcome = OutcomeWait
	default:
		a.Outcome = OutcomeRetry
	}
	o.Observer.Decided(d.ctx, a)
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
	a := ObservedAttempt{Endpoint: d.batch.in.endpoint.Name, ID: d.stored.id, Type: d.stored.messageType, Headers: d.Headers, SentAt: d.stored.sentAt,
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
	o.Settled(in.run.hardCtx, ObservedSettle{Endpoint: in.endpoint.Name, Handled: len(s.keys) + len(s.rows) + s.gone - s.inbox.duplicates - s.expired,
		Retried: len(s.retries) - s.waits, Waiting: s.waits, Failed: len(s.failures), Expired: s.expired, Duplicates: s.inbox.duplicates, Leased: len(s.leases),
		Sent: len(s.outgoing.messages), Took: time.Since(s.began)})
}

// leased is told which of the deliveries that were cut have a lease.
func (o *observing) leased(in *instance, leases map[int64]int64) {
	if o == nil || o.Leased == nil || len(leases) == 0 {
		return
	}
	defer o.caught("Leased")
	o.Leased(in.run.hardCtx, ObservedLease{Endpoint: in.endpoint.Name, Messages: len(leases)})
}

func (o *observing) woken(in *instance, by WokenBy) {
	if o == nil || o.Woken == nil {
		return
	}
	defer o.caught("Woken")
	o.Woken(in.run.hardCtx, ObservedWake{Endpoint: in.endpoint.Name, By: by})
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
