package sqlq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/sqlq/sqlq/sqlq/internal/presence"
	"github.com/sqlq/sqlq/sqlq/internal/sending"
	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/wakeup"
)

// runner is what all endpoints share that a Client runs: the receivers, and the two connections that listen and keep house. It
// begins with the first of them and ends with the last; they come and go in groups.
//
// Locks are taken in this order, each while those before it may be held and none of those after it:
//
//	Client.mu, dispatcher.mu, pauses.mu, the listener's, hand.mu, one part's, breaker.mu, life.mu
//
// The parts are those of an instance: lookout, source, suspicion, solos, refusals, counts, and handlings and singles, which its
// handlers have, and pulling.
// Built with the tag lockorder the package checks the order (lockorder_on.go). apart.alone comes before all of them: it is held
// while a handler runs. Of two locks of one kind, or of two parts, none is held while the other is taken. No lock is held during a round
// trip to the database, but receiveTx.mu, which is the connection's.
//
// Client.mu guards groups and whether they are leaving, ending, up, spare, and changes to the rosters. What begin makes is unchanged
// afterwards, but for hidden, which is the keeper's.
type runner struct {
	client     *Client
	groups     []*group // that begin, run, or end
	ending     bool     // the last of them does; nobody joins any more
	up         bool     // begin has been
	spare      bool     // there is a spare receiver
	instances  roster[instance]
	receivers  roster[receiver]
	dispatcher *dispatcher
	listener   *wakeup.Listener
	keeper     *presence.Keeper
	pauses     pauses
	outage     *session.Outage
	hidden     map[string]bool // queues whose messages row security may hide, as it was said; the keeper's
	suspect    chan struct{}   // filled while a message that may have killed a process is in hand
	beginning  chan struct{}   // filled while a group begins it
	closing    context.Context // ends when it begins to end
	close      context.CancelFunc
	left       chan struct{} // filled when a group has left
	ended      chan struct{} // closed when it has ended

	hardCtx       context.Context // of the library's own statements: ends when everything is over
	cancelHard    context.CancelFunc
	stopListening context.CancelFunc
	stopKeeping   context.CancelFunc // what is under way is finished
	cutKeeping    context.CancelFunc // and now it is not
	listening     sync.WaitGroup
	keeping       sync.WaitGroup
}

// Run handles the messages of the endpoints until ctx ends, then drains: it stops fetching, lets running handlers finish
// for up to Config.DrainTimeout, settles what they did, gives the rest back, and returns nil. It creates missing queues,
// if the role may, and subscribes them to the events that the endpoints handle; both are committed before
// the first message is handled. If the database is lost, Run waits for it instead of returning. Close cuts the drain short.
//
// Start takes up one endpoint more while others run. All endpoints of a Client share its few receive connections, and one connection
// that listens and one that keeps house. There is one Run at a time.
//
// Errors, before any message is handled: ErrInvalidEndpoint, ErrTooFewConnections, ErrPermissionDenied, ErrHidden,
// ErrListenURLMismatch, ErrAlreadyRunning, ErrClosed, and those of the database.
func (c *Client) Run(ctx context.Context, endpoints ...Endpoint) error {
	g, err := c.join(ctx, endpoints, true)
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
			return nil
		}
		return fmt.Errorf("run: %w", err)
	}
	if err := g.begin(); err != nil {
		if ctx.Err() != nil || g.isStopped() {
			return nil
		}
		return fmt.Errorf("run: %w", err)
	}
	select {
	case <-ctx.Done():
	case <-g.stopped:
	}
	g.end()
	return nil
}

// Prepare does what Run does before it handles messages, and no more: it creates the endpoints' queues, if they are
// missing and the role may, subscribes them to the events that they handle, and routes their commands. Call it first if you send before
// or while Run starts, so that every queue and subscription exists by then.
func (c *Client) Prepare(ctx context.Context, endpoints ...Endpoint) error {
	endpoints, err := c.validated(endpoints)
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if c.closed.Load() {
		return fmt.Errorf("prepare: %w", ErrClosed)
	}
	if err := c.prepareQueues(ctx, endpoints); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	return nil
}

// validated returns the endpoints with their defaults.
func (c *Client) validated(endpoints []Endpoint) ([]Endpoint, error) {
	endpoints = slices.Clone(endpoints)
	for i := range endpoints {
		endpoints[i] = endpoints[i].withDefaults()
	}
	return endpoints, validateEndpoints(c.config, endpoints)
}

// join makes a group of endpoints, which are validated together with those that run. While the last one that ran ends it waits.
func (c *Client) join(ctx context.Context, endpoints []Endpoint, ofRun bool) (*group, error) {
	endpoints, err := c.validated(endpoints)
	if err != nil {
		return nil, err
	}
	for {
		g, ending, err := c.tryJoin(ctx, endpoints, ofRun)
		if ending == nil {
			return g, err
		}
		select {
		case <-ending:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// tryJoin is join without the wait: it returns what to wait for.
func (c *Client) tryJoin(ctx context.Context, endpoints []Endpoint, ofRun bool) (g *group, ending <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.runner
	switch {
	case c.closed.Load():
		return nil, nil, ErrClosed
	case r != nil && r.ending:
		return nil, r.ended, nil
	case r == nil:
		r = newRunner(c)
	}
	if ofRun && slices.ContainsFunc(r.groups, func(other *group) bool { return other.ofRun }) {
		return nil, nil, fmt.Errorf("%w: give all endpoints to one Run, or add them with Start", ErrAlreadyRunning)
	}
	if err := besides(r.endpoints(), endpoints); err != nil {
		return nil, nil, err
	}
	c.runner = r
	g = newGroup(ctx, r, endpoints)
	g.ofRun = ofRun
	r.groups = append(r.groups, g)
	return g, nil, nil
}

func newRunner(c *Client) *runner {
	r := &runner{client: c, outage: session.NewOutage(c.log), suspect: make(chan struct{}, 1), beginning: make(chan struct{}, 1),
		left: make(chan struct{}, 1), ended: make(chan struct{})}
	r.closing, r.close = context.WithCancel(context.Background())
	r.dispatcher = newDispatcher(&r.instances, c.config.ReceiveConnections)
	return r
}

// endpoints returns those of all groups. The caller has Client.mu.
func (r *runner) endpoints() (all []Endpoint) {
	for _, g := range r.groups {
		all = append(all, g.endpoints...)
	}
	return all
}

// isLast notes that a group is about to leave, and reports whether only such groups are left. Then the runner ends with this one: no other
// can join, and those that are leaving need not wait for what the end does for them too.
func (r *runner) isLast(g *group) bool {
	r.client.mu.Lock()
	defer r.client.mu.Unlock()
	g.leaving = true
	if slices.ContainsFunc(r.groups, func(other *group) bool { return !other.leaving }) {
		return false
	}
	r.ending = true
	r.close()
	return true
}

// leave forgets a group that has ended, and with the last the runner.
func (r *runner) leave(g *group) {
	c := r.client
	c.mu.Lock()
	defer c.mu.Unlock()
	r.instances.remove(g.instances...)
	r.groups = slices.DeleteFunc(slices.Clone(r.groups), func(other *group) bool { return other == g })
	nudge(r.left)
	if len(r.groups) > 0 {
		return
	}
	c.runner = nil
	close(r.ended)
}

func (r *runner) isEnding() bool {
	r.client.mu.Lock()
	defer r.client.mu.Unlock()
	return r.ending
}

// awaitOthers waits until a group is alone: those that were leaving have left.
func (r *runner) awaitOthers() {
	for alone := false; !alone; {
		r.client.mu.Lock()
		alone = len(r.groups) == 1
		r.client.mu.Unlock()
		if !alone {
			<-r.left
		}
	}
}

func (r *runner) newKeeper() *presence.Keeper {
	c, low := r.client, &raiser{run: r}
	return presence.New(presence.Config{
		Store: c.store, Pool: c.pool, Log: c.log, Connector: &c.connector, Outage: r.outage,
		LeaseTime: c.config.LeaseTime, StrandedAfter: c.config.strandedAfter, KeepArchived: c.config.KeepArchived,
		Host: c.config.host, Version: c.config.version,
		Led:           func(leads bool) { c.config.observing.led(r.hardCtx, c.config.Schema, leads) },
		CheckDatabase: c.checkListenURL, Lost: r.restart, Wake: c.wakes.Wake, Flush: c.wakes.Flush,
		BeginReading: r.pauses.begin, LearnPaused: r.learnPaused, LearnHidden: r.learnHidden,
		Hears: func() bool { return r.listener.Hears() }, Refresh: func() { r.listener.Refresh() },
		Raise: low.raiseInTime, KeepLow: low.keepLast,
	})
}

func (r *runner) newListener() *wakeup.Listener {
	c := r.client
	return wakeup.New(wakeup.Config{
		Store: c.store, Pool: c.pool, Log: c.log, Connector: &c.connector, Outage: r.outage,
		HasListenURL: c.config.ListenURL != "", PollInterval: c.config.PollInterval, StandbyEvery: c.config.standbyEvery, Rand: c.config.rand,
		Lost: r.restart, ReadPaused: r.readPaused, NotifyOtherwise: c.wakes.Ask,
		Process: r.keeper.Process, Leads: r.keeper.Leads, DueSoon: r.keeper.DueSoon, LeadIsVacant: r.keeper.LeadIsVacant,
	})
}

// prepare makes sure that the endpoints can run: connections, queues, subscriptions, routes.
func (r *runner) prepare(ctx context.Context, endpoints []Endpoint) error {
	c := r.client
	if err := r.checkConnections(ctx); err != nil {
		return err
	}
	return c.prepareQueues(ctx, endpoints)
}

// checkConnections makes sure that there may be as many as receiving takes, unless there are.
func (r *runner) checkConnections(ctx context.Context) error {
	c := r.client
	c.mu.Lock()
	spare := r.spare || needsSpare(r.endpoints())
	enough := r.up && spare == r.spare
	c.mu.Unlock()
	if enough {
		return nil
	}
	receiving := c.config.ReceiveConnections + 2
	if spare {
		receiving++
	}
	need := receiving + minPool
	has, err := c.store.Sessions.Capacity(ctx, c.pool)
	if err != nil {
		return fmt.Errorf("ask for the connection limits: %w", session.Unreachable(err))
	}
	if has.Connections < need {
		return fmt.Errorf("%w: %s allows %d, receiving takes %d and the pool at least %d: raise it, or lower Config.ReceiveConnections (now %d)",
			ErrTooFewConnections, has.Limit, has.Connections, receiving, minPool, c.config.ReceiveConnections)
	}
	return nil
}

func (c *Client) prepareQueues(ctx context.Context, endpoints []Endpoint) error {
	if err := requireQueues(ctx, c, endpoints); err != nil {
		return err
	}
	for _, e := range endpoints {
		if err := c.prepareQueue(ctx, e); err != nil {
			return err
		}
	}
	c.routes.declare(endpoints)
	return nil
}

func (c *Client) prepareQueue(ctx context.Context, e Endpoint) error {
	exists, may, err := c.store.Queues.MayReceive(ctx, c.pool, e.Name)
	if err == nil && !exists && e.MustExist { // it has just been dropped
		return requireQueues(ctx, c, []Endpoint{e})
	}
	if err == nil && !exists {
		if _, err = c.store.Queues.Create(ctx, c.pool, e.Name); err == nil {
			_, may, err = c.store.Queues.MayReceive(ctx, c.pool, e.Name)
		}
	}
	if session.State(err) == session.InsufficientPrivilege {
		return fmt.Errorf("create queue %q: %w (have a role that may create it run: sqlq queue create %s --schema %s): %w", e.Name, ErrPermissionDenied, e.Name, shellWord(c.config.Schema), err)
	}
	if err != nil {
		return fmt.Errorf("create queue %q: %w", e.Name, session.Unreachable(err))
	}
	if !may {
		return fmt.Errorf("receive from queue %q: %w (%s)", e.Name, ErrPermissionDenied, c.grant("consumer", e.Name))
	}
	if err := c.checkHidden(ctx, e.Name); err != nil {
		return fmt.Errorf("receive from queue %q: %w", e.Name, err)
	}
	if e.Deduplicate > 0 {
		if may, err := c.store.Inbox.MayClaim(ctx, c.pool); err != nil {
			return fmt.Errorf("look for the inbox of queue %q: %w", e.Name, err)
		} else if !may {
			return fmt.Errorf("deduplicate in queue %q: %w, %s", e.Name, ErrPermissionDenied, c.grant("consumer", e.Name))
		}
	}
	if events := e.events(); len(events) > 0 {
		err := c.store.Subscriptions.Add(ctx, c.pool, e.Name, events)
		if session.State(err) == session.InsufficientPrivilege {
			return fmt.Errorf("subscribe queue %q to %s: %w (%s): %w", e.Name, quoted(events), ErrPermissionDenied, c.grantEvents(e.Name, events), err)
		}
		if err != nil {
			return fmt.Errorf("subscribe queue %q to %s: %w", e.Name, quoted(events), err)
		}
	}
	return nil
}

// admit has a group's instances registered and, with the first group, begins what all share. Then they may fetch.
func (r *runner) admit(ctx context.Context, g *group) error {
	select {
	case r.beginning <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if !r.isUp() {
		defer func() { <-r.beginning }()
		return r.begin(ctx, g)
	}
	<-r.beginning
	r.add(g)
	if slices.ContainsFunc(g.instances, func(in *instance) bool { return in.hasTx }) {
		r.client.settings.ask(ctx, r.client, r.client.pool) // no connection may be made for them
	}
	return r.keeper.Join(ctx, g.members())
}

func (r *runner) isUp() bool {
	r.client.mu.Lock()
	defer r.client.mu.Unlock()
	return r.up
}

// add adds a group's instances, which learn what there is to learn, and fetch nothing yet.
func (r *runner) add(g *group) {
	r.client.mu.Lock()
	defer r.client.mu.Unlock()
	r.instances.add(g.instances...)
}

// begin begins what all groups share, with the first of them.
func (r *runner) begin(ctx context.Context, g *group) error {
	c := r.client
	c.mu.Lock()
	r.hardCtx, r.cancelHard = context.WithCancel(g.ctx)
	r.keeper = r.newKeeper()
	r.listener = r.newListener()
	r.instances.add(g.instances...)
	c.mu.Unlock()
	if err := r.keeper.Start(ctx, g.members()); err != nil {
		r.keeper.End() // it may have registered
		r.cancelHard()
		return err
	}
	c.wakes.Through(&sending.Receivers{Wake: r.listener.Wake, Notify: r.listener.Notify})
	listening, stopListening := context.WithCancel(r.hardCtx)
	keeping, stopKeeping := context.WithCancel(r.hardCtx)
	working, cutKeeping := context.WithCancel(r.hardCtx)
	r.stopListening, r.stopKeeping, r.cutKeeping = stopListening, stopKeeping, cutKeeping
	r.listening.Go(func() { r.listener.Listen(listening) })
	r.keeping.Go(func() { r.keeper.Keep(working, keeping) })
	for range c.config.ReceiveConnections {
		r.hire(newReceiver(r, false))
	}
	c.mu.Lock()
	r.up = true
	c.mu.Unlock()
	return nil
}

// end ends what begin began. settled says that receivers had nothing more to do when it was called; else they may be waiting for
// the database.
func (r *runner) end(settled bool) {
	defer r.cancelHard()
	r.dispatcher.close()
	r.dismissReceivers(settled)
	r.stopListening()
	r.listening.Wait() // whom the keeper wakes finds the watch free
	r.stopKeeping()
	if !waitFor(&r.keeping, endWithin) {
		r.cutKeeping()
		r.keeping.Wait()
	}
	r.keeper.End()
	r.client.wakes.Through(nil)
}

// hire has a receiver serve.
func (r *runner) hire(rec *receiver) {
	r.client.mu.Lock()
	r.receivers.add(rec)
	r.client.mu.Unlock()
	go rec.receive()
}

// hireSpare has a spare receiver serve, if endpoints need one and there is none.
func (r *runner) hireSpare() {
	r.client.mu.Lock()
	needed := !r.spare && needsSpare(r.endpoints())
	r.spare = r.spare || needed
	r.client.mu.Unlock()
	if needed {
		r.dispatcher.addSpare()
		r.hire(newReceiver(r, true))
	}
}

// needsSpare reports whether HandleTx handlers could have all receive connections while others of the endpoints want one.
func needsSpare(endpoints []Endpoint) bool {
	withTx, plain := 0, false
	for _, e := range endpoints {
		inTx := false
		for h := range e.allHandlers() {
			inTx, plain = inTx || h.inTx, plain || !h.inTx
		}
		if inTx {
			withTx++
		}
	}
	return withTx > 0 && plain || withTx > 1
}
