package sqlq

import (
	"context"
	"log/slog"
	"time"
)

// Settled is what has become of one message that an endpoint had in hand, as Endpoint.Settled is told.
//
// It is told after the commit that makes it true, and never of a settle that was not committed. Each delivery whose outcome was committed
// is told once: a message that is retried later is told with OutcomeRetry, and again when it is delivered again; immediate
// retries belong to one delivery. There are two exceptions. If the connection or the process is lost at the commit nobody knows whether
// it took place: nothing is told, and unless the message was settled it is delivered again. And what the process has not told when it
// ends is not told later. So it is no ledger: what must not be missed belongs into the transaction of a HandleTx handler.
//
// A message that goes back to its queue without having been begun is not told, and neither are those that others remove: the
// sweep of expired messages, operators.
//
// The func is called on a goroutine of its own, one call at a time for each endpoint of a process, without any lock and apart from handlers
// and receive connections. Calls come in the order of the commits on one connection. It may send with the context that it gets, which
// ends after ten seconds. If a call takes longer, the endpoint goes on without it: up to 1,000 outcomes wait for it to return, and those
// beyond are not told; the log says how many. A panic is recovered and logged. When an endpoint ends it waits up to five seconds for
// the func to be told the rest.
type Settled struct {
	Endpoint string    // that had the message; also the queue
	ID       ID        // of the message
	Type     string    // the message type
	Headers  Headers   // as they were stored when the message was fetched; never nil
	SentAt   time.Time // by the database's clock

	Attempt int           // 1 for the first; 0 if there was none. One that does not count (OutcomeWait, OutcomeUndone) has the number that the next has too
	Outcome Outcome       // OutcomeFail: for good, it is in the error table. OutcomeUndone: the end of Run has interrupted it
	Delay   time.Duration // for OutcomeRetry and OutcomeWait: until it comes back; 0: at once
	Err     error         // of the last attempt; nil if it succeeded
}

const (
	// mostUntold is how many outcomes may wait for the func: with more an instance fetches nothing.
	mostUntold = 1_000
	// tellWithin is how long a call may take before the instance goes on without it.
	tellWithin = 10 * time.Second
)

// told is an outcome on its way to the func. Its headers are read there.
type told struct {
	Settled
	stored []byte // the headers
}

// outcomes tells Endpoint.Settled what was committed. Whoever has committed puts it in; a goroutine, which is there while there is
// something to tell, calls the func. mu guards what is below it; it is one of the last in the order of locks. Nil: nobody wants to know.
type outcomes struct {
	tell     func(context.Context, Settled)
	endpoint string
	messages *messageLog
	life     *life
	ctx      func() context.Context // ends with the Run
	kick     func()                 // says that the instance may fetch again

	mu      ranked[ofPart]
	queue   []told
	telling bool      // the goroutine is there
	began   time.Time // when the call under way did
	dropped int       // were not told, because a call did not return
	watched bool      // a timer runs for the call under way
}

func newOutcomes(in *instance) *outcomes {
	if in.endpoint.Settled == nil {
		return nil
	}
	return &outcomes{tell: in.endpoint.Settled, endpoint: in.endpoint.Name, messages: in.client.config.messages, life: &in.group.life,
		ctx: func() context.Context { return in.run.hardCtx }, kick: in.run.dispatcher.kick}
}

// of returns what is to be told of a delivery that is about to be settled; false for one that was not begun.
func (o *outcomes) of(d *delivery) (t told, ok bool) {
	t = told{Settled{Endpoint: o.endpoint, ID: d.stored.id, Type: d.stored.messageType, SentAt: time.UnixMicro(d.stored.sentAt)}, d.stored.headers}
	if d.goesBack() && !d.wasBegun() {
		return t, false
	}
	if t.Attempt = d.made(); d.back { // its handler runs
		t.Outcome = OutcomeUndone
	} else {
		t.Outcome, t.Delay, t.Err = d.result()
	}
	return t, true
}

// wasBegun reports whether an attempt was begun since the message was fetched.
func (in *Incoming) wasBegun() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.begun
}

// gone tells of a delivery whose message is gone without a settle.
func (o *outcomes) gone(d *delivery) {
	if o == nil {
		return
	}
	if t, ok := o.of(d); ok {
		o.put([]told{t})
	}
}

// put has what was committed told.
func (o *outcomes) put(all []told) {
	if o == nil || len(all) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) >= mostUntold && o.isStuck(time.Now()) {
		o.dropped += len(all)
		return
	}
	o.queue = append(o.queue, all...)
	if !o.telling {
		o.telling = true
		o.life.goroutines.Add(1)
		go o.tellAll()
	}
}

// isStuck reports whether a call does not return. The caller has mu.
func (o *outcomes) isStuck(now time.Time) bool {
	return !o.began.IsZero() && now.Sub(o.began) > tellWithin
}

// isBehind reports whether so much is to be told that nothing is to be fetched. A call that does not return keeps nobody from it.
func (o *outcomes) isBehind(now time.Time) bool {
	if o == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) < mostUntold || o.isStuck(now) {
		return false
	}
	if !o.watched && !o.began.IsZero() {
		o.watched = true
		o.life.after(o.began.Add(tellWithin+time.Millisecond).Sub(now), func() {
			o.mu.Lock()
			o.watched = false
			o.mu.Unlock()
			o.kick()
		})
	}
	return true
}

// tellAll calls the func until nothing is left to tell. The func may end its goroutine; then another goes on.
func (o *outcomes) tellAll() {
	ended := false
	defer func() {
		if !ended {
			go o.tellAll()
			return
		}
		o.life.goroutines.Done()
	}()
	for {
		t, ok := o.next()
		if !ok {
			ended = true
			return
		}
		o.tellOne(t)
	}
}

// next takes the next outcome out. There is none when the Run is over.
func (o *outcomes) next() (t told, ok bool) {
	over := o.ctx().Err() != nil
	o.mu.Lock()
	if over {
		o.dropped += len(o.queue)
		o.queue = nil
	}
	dropped := o.dropped
	o.dropped, o.began = 0, time.Time{}
	caughtUp := len(o.queue) == mostUntold/2
	if ok = len(o.queue) > 0; ok {
		t, o.queue[0] = o.queue[0], told{}
		o.queue, o.began = o.queue[1:], time.Now()
	} else {
		o.telling = false
	}
	o.mu.Unlock()
	if dropped > 0 {
		o.messages.log.Error("sqlq: Endpoint.Settled does not keep up, or did not return in time; outcomes were not told", "endpoint", o.endpoint, "outcomes", dropped)
	}
	if caughtUp || dropped > 0 {
		o.kick()
	}
	return t, ok
}

func (o *outcomes) tellOne(t told) {
	ctx, cancel := context.WithTimeout(o.ctx(), tellWithin)
	defer cancel()
	t.Headers, _ = (&Incoming{stored: stored{headers: t.stored}}).storedHeaders()
	err := call(func() error {
		o.tell(ctx, t.Settled)
		return nil
	})
	if err != nil {
		o.messages.say(ctx, slog.LevelError, "sqlq: Endpoint.Settled panicked", t.Endpoint, t.Type, err, "message", t.ID)
	}
}
