package sqlq

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/sqlq/sqlq/sqlq/internal/presence"
	"github.com/sqlq/sqlq/sqlq/internal/sending"
	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/wakeup"
)

// runner is one Run: the endpoints' instances, the receivers that serve them, and the two connections that listen and
// keep house. Its fields are unchanged once equip has been, but for hidden, which is the keeper's.
//
// Locks are taken in this order, each while those before it may be held and none of those after it:
//
//	Client.mu, dispatcher.mu, pauses.mu, the listener's, hand.mu, one part's, breaker.mu, life.mu
//
// The parts are those of an instance: lookout, source, suspicion, solos, refusals, counts, and handlings, which its handlers have.
// Built with the tag lockorder the package checks the order (lockorder_on.go). apart.alone comes before all of them: it is held
// while a handler runs. Of two locks of one kind, or of two parts, none is held while the other is taken. No lock is held during a round
// trip to the database, but receiveTx.mu, which is the connection's.
type runner struct {
	client     *Client
	instances  []*instance
	dispatcher *dispatcher
	listener   *wakeup.Listener
	keeper     *presence.Keeper
	receivers  []*receiver
	pauses     pauses
	outage     *session.Outage
	hidden     map[string]bool // queues whose messages row security may hide, as it was said; the keeper's
	suspect    chan struct{}   // filled while a message that may have killed a process is in hand
	emptied    chan struct{}   // filled when an instance that drains has nothing in hand any more
	life       life

	stop       context.CancelFunc // begins the drain
	hurry      context.Context    // ended: the drain waits for handlers no longer
	cutShort   context.CancelFunc // ends hurry
	ended      chan struct{}
	handlerCtx context.Context // of the handlers: ends with the drain's patience
	hardCtx    context.Context // of the library's own statements: ends when everything is over
}

// Run handles the messages of the endpoints until ctx ends, then drains: it stops fetching, lets running handlers finish
// for up to Config.DrainTimeout, settles what they did, gives the rest back, and returns nil. It creates missing queues,
// if the role may, and subscribes them to the events that the endpoints handle; both are committed before
// the first message is handled. If the database is lost, Run waits for it instead of returning. Close cuts the drain short.
//
// Errors, before any message is handled: ErrInvalidEndpoint, ErrTooFewConnections, ErrPermissionDenied, ErrHidden,
// ErrListenURLMismatch, ErrAlreadyRunning, ErrClosed, and those of the database.
func (c *Client) Run(ctx context.Context, endpoints ...Endpoint) error {
	endpoints, err := c.validated(endpoints)
	if err != nil {
		return fmt.Errorf("run: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	r, err := c.newRunner(ctx, stop, endpoints)
	if err != nil {
		return fmt.Errorf("run: %w", err)
	}
	defer c.forget(r)
	if err := r.prepare(ctx, endpoints); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("run: %w", err)
	}
	return r.serve(ctx, endpoints)
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

func (c *Client) newRunner(ctx context.Context, stop context.CancelFunc, endpoints []Endpoint) (*runner, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed.Load():
		return nil, ErrClosed
	case c.runner != nil:
		return nil, fmt.Errorf("%w: give all endpoints to one Run", ErrAlreadyRunning)
	}
	r := &runner{client: c, dispatcher: newDispatcher(), outage: session.NewOutage(c.log), suspect: make(chan struct{}, 1), emptied: make(chan struct{}, 1), stop: stop, ended: make(chan struct{})}
	r.handlerCtx = context.WithValue(context.WithoutCancel(ctx), handlerContext{}, true)
	r.hardCtx = context.WithoutCancel(ctx)
	r.hurry, r.cutShort = context.WithCancel(r.hardCtx)
	r.keeper = r.newKeeper()
	r.listener = r.newListener()
	c.runner = r
	c.wakes.Through(&sending.Receivers{Wake: r.listener.Wake, Notify: r.listener.Notify})
	return r, nil
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
		IsDraining: r.dispatcher.isDraining, Lost: r.restart, ReadPaused: r.readPaused, NotifyOtherwise: c.wakes.Ask,
		Process: r.keeper.Process, Leads: r.keeper.Leads, DueSoon: r.keeper.DueSoon, LeadIsVacant: r.keeper.LeadIsVacant,
	})
}

func (c *Client) forget(r *runner) {
	c.mu.Lock()
	c.runner = nil
	c.wakes.Through(nil)
	c.mu.Unlock()
	r.cutShort() // frees its context
	close(r.ended)
}

// prepare makes sure that the endpoints can run: connections, queues, subscriptions, routes.
func (r *runner) prepare(ctx context.Context, endpoints []Endpoint) error {
	c := r.client
	receiving := c.config.ReceiveConnections + 2
	if needsSpare(endpoints) {
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
	return c.prepareQueues(ctx, endpoints)
}

func (c *Client) prepareQueues(ctx context.Context, endpoints []Endpoint) error {
	if err := c.requireQueues(ctx, endpoints); err != nil {
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
		return c.requireQueues(ctx, []Endpoint{e})
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

// serve runs until ctx ends, then drains.
func (r *runner) serve(ctx context.Context, endpoints []Endpoint) error {
	c := r.client
	var cancelHandlers, cancelHard context.CancelFunc
	r.handlerCtx, cancelHandlers = context.WithCancel(r.handlerCtx)
	defer cancelHandlers()
	r.hardCtx, cancelHard = context.WithCancel(r.hardCtx)
	defer cancelHard()
	r.equip(endpoints)
	defer r.life.end(0) // where Run ends before it has begun; else it has ended by then
	background, stopBackground := context.WithCancel(r.hardCtx)
	defer stopBackground()
	if err := r.keeper.Start(ctx); err != nil {
		r.keeper.End() // it may have registered
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("run: %w", err)
	}
	listening, stopListening := context.WithCancel(background)
	defer stopListening()
	working, cutShort := context.WithCancel(r.hardCtx)
	defer cutShort()
	var receivers, helpers, keeper, listener sync.WaitGroup
	listener.Go(func() { r.listener.Listen(listening) })
	keeper.Go(func() { r.keeper.Keep(working, background) })
	for _, in := range r.instances {
		helpers.Go(func() { in.bell.Attend(background) })
	}
	for _, rec := range r.receivers {
		receivers.Go(rec.receive)
	}

	<-ctx.Done()
	r.drain(cancelHandlers)
	r.dispatcher.close()
	defer c.config.messages.flush()
	defer func() {
		for _, in := range r.instances {
			in.hand.nameLost()
		}
	}()
	if !waitFor(&receivers, endWithin) {
		cancelHard()
		c.log.Error("sqlq: a handler ignores that its context has ended; leaving it behind")
		r.abandon()
	}
	r.endLife()
	stopListening()
	listener.Wait() // whom the keeper wakes finds the watch free
	stopBackground()
	helpers.Wait()
	if !waitFor(&keeper, endWithin) {
		cutShort()
		keeper.Wait()
	}
	r.keeper.End()
	return nil
}

// endLife ends the timers, and waits for the slots unless handlers are left behind in them.
func (r *runner) endLife() {
	within := endWithin
	for _, in := range r.instances {
		if slots, _ := in.hand.working(false); slots > 0 {
			within = 0
		}
	}
	if !r.life.end(within) {
		r.client.log.Error("sqlq: handlers ignore that their context has ended; leaving them behind")
	}
}

// equip makes the instances of the endpoints, and the receivers that serve them.
func (r *runner) equip(endpoints []Endpoint) {
	c := r.client
	var instances []*instance
	var bells []*wakeup.Bell
	var members []*presence.Member
	for _, e := range endpoints {
		in := newInstance(r, e)
		instances, bells, members = append(instances, in), append(bells, in.bell), append(members, in.member)
	}
	r.listener.Use(bells)
	r.keeper.Use(members)
	c.mu.Lock() // Stats reads them
	r.instances = instances
	c.mu.Unlock()
	r.dispatcher.instances, r.dispatcher.receivers = instances, c.config.ReceiveConnections
	for range c.config.ReceiveConnections {
		r.receivers = append(r.receivers, &receiver{link: link{run: r}, cut: make(chan struct{}, 1)})
	}
	for _, in := range instances {
		if in.hasTx {
			r.dispatcher.txIdle.Add(1)
		}
	}
	if needsSpare(endpoints) {
		r.dispatcher.spare = make(chan struct{}, 1)
		r.receivers = append(r.receivers, &receiver{link: link{run: r}, spare: true, cut: make(chan struct{}, 1)})
	}
}

// needsSpare reports whether HandleTx handlers could have all receive connections while others of the endpoints want one.
func needsSpare(endpoints []Endpoint) bool {
	inTx, plain := false, false
	for _, e := range endpoints {
		for h := range e.allHandlers() {
			inTx, plain = inTx || h.inTx, plain || !h.inTx
		}
	}
	return inTx && plain
}

func (r *runner) endpoints() []string {
	var names []string
	for _, in := range r.instances {
		names = append(names, in.endpoint.Name)
	}
	return names
}
