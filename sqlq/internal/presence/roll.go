package presence

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/sqlq/sqlq/sqlq/internal/session"
)

// roll is how members come and go while Keep runs: others ask for it, and the Keeper's goroutine does it.
type roll struct {
	keeper *Keeper

	mu       sync.Mutex // guards what is below it, and whether requests are taken
	requests []*request // in order
}

// request is one for members to come or to go. Whoever makes it waits for done.
type request struct {
	members []*Member
	leave   bool
	ctx     context.Context // of who waits for members to come
	taken   bool            // the Keeper is at it
	done    chan struct{}   // closed when it is done, or has failed
	err     error
}

// Join makes the Keeper do the housekeeping for further members, while Keep runs. When it returns they are registered, and know
// whether their queues are paused and whether a process of their endpoints has died: they may fetch. After an error none of them is
// registered, or is not for long. When the connection is lost it waits for another one, until ctx ends.
func (k *Keeper) Join(ctx context.Context, members []*Member) error {
	r := k.roll
	q := &request{members: members, ctx: ctx, done: make(chan struct{})}
	r.ask(q)
	select {
	case <-q.done:
		return q.err
	case <-ctx.Done():
	}
	if r.withdraw(q) {
		return context.Cause(ctx)
	}
	<-q.done // it is at it, which does not take long
	return q.err
}

// Leave makes the Keeper record that members have shut down cleanly, and wake others for the messages that were given back. It
// returns when that is done, or when ctx ends; then the Keeper does it when it can.
func (k *Keeper) Leave(ctx context.Context, members []*Member) error {
	q := &request{members: members, leave: true, done: make(chan struct{})}
	k.roll.ask(q)
	select {
	case <-q.done:
		return q.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (r *roll) ask(q *request) {
	k := r.keeper
	r.mu.Lock()
	r.requests = append(r.requests, q)
	r.mu.Unlock()
	k.nudge()
}

// withdraw takes a request for members to come back, unless the Keeper is at it. Some may be registered, if it has been before.
func (r *roll) withdraw(q *request) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if q.taken {
		return false
	}
	r.requests[slices.Index(r.requests, q)] = q.undone()
	return true
}

// undone has members go that were to come.
func (q *request) undone() *request {
	return &request{members: q.members, leave: true, done: make(chan struct{})}
}

// take takes the requests that have been made.
func (r *roll) take() (requests []*request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, q := range r.requests {
		q.taken = true
	}
	requests, r.requests = r.requests, nil
	return requests
}

// putBack has requests done later, but for those of members to come that nobody waits for any more: those have failed.
func (r *roll) putBack(requests []*request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var again []*request
	for _, q := range requests {
		if !q.leave && q.ctx.Err() != nil {
			q.fail(context.Cause(q.ctx))
			again = append(again, q.undone())
			continue
		}
		q.taken = false
		again = append(again, q)
	}
	r.requests = append(again, r.requests...)
}

func (q *request) fail(err error) {
	q.err = err
	close(q.done)
}

// attendTo does what was asked for: members go, then others come. What cannot be done because the connection is lost is done on the
// next one.
func (r *roll) attendTo(ctx context.Context) error {
	requests := r.take()
	if len(requests) == 0 {
		return nil
	}
	var going, coming []*request
	for _, q := range requests {
		if q.leave {
			going = append(going, q)
		} else {
			coming = append(coming, q)
		}
	}
	if err := r.letGo(ctx, going); err != nil {
		r.putBack(requests)
		return err
	}
	return r.letCome(ctx, coming)
}

// letGo records that members have shut down cleanly. It returns an error if that is to be tried again.
func (r *roll) letGo(ctx context.Context, requests []*request) error {
	k := r.keeper
	members := registered(requests)
	err := r.dismiss(ctx, members)
	if err != nil && (session.Lost(err) || ctx.Err() != nil) {
		return err
	}
	if err != nil {
		k.Log.Warn("sqlq: cannot record the end of an instance; others will take it for crashed", "endpoints", endpointsOf(members), "err", err)
	}
	k.members = slices.DeleteFunc(k.members, func(m *Member) bool { return slices.Contains(members, m) })
	for _, m := range members {
		delete(k.crashes, m.Endpoint) // if it comes back, a crash is news again
	}
	for _, q := range requests {
		close(q.done)
	}
	return nil
}

// registered returns the members of requests that are registered.
func registered(requests []*request) (members []*Member) {
	for _, q := range requests {
		for _, m := range q.members {
			if m.Number() != 0 {
				members = append(members, m)
			}
		}
	}
	return members
}

func (r *roll) dismiss(ctx context.Context, members []*Member) error {
	k := r.keeper
	if len(members) == 0 {
		return nil
	}
	if err := k.drained(ctx, k.conn, members); err != nil {
		return fmt.Errorf("record the end of instances: %w", err)
	}
	if err := k.Store.Wakeups.Wake(ctx, k.conn, endpointsOf(members)); err != nil {
		return fmt.Errorf("wake receivers: %w", err)
	}
	k.KeepLow(k.conn)
	return nil
}

// letCome registers members and has them know what they must before they fetch. It returns an error of the connection.
func (r *roll) letCome(ctx context.Context, requests []*request) error {
	var come []*request
	for i, q := range requests {
		err := r.registerAll(ctx, q.members)
		switch {
		case err == nil:
			come = append(come, q)
		case session.Lost(err) || ctx.Err() != nil:
			r.putBack(append(come, requests[i:]...))
			return err
		default:
			r.refuse(q, err)
		}
	}
	if len(come) == 0 {
		return nil
	}
	if err := r.introduce(ctx, registered(come)); err != nil {
		if session.Lost(err) || ctx.Err() != nil {
			r.putBack(come)
			return err
		}
		for _, q := range come {
			r.refuse(q, err)
		}
		return err
	}
	for _, q := range come {
		close(q.done)
	}
	return nil
}

// refuse answers a request of members to come with an error. Those that are registered go again.
func (r *roll) refuse(q *request, err error) {
	q.fail(err)
	r.ask(q.undone())
}

// registerAll registers members that are not yet.
func (r *roll) registerAll(ctx context.Context, members []*Member) error {
	k := r.keeper
	for _, m := range members {
		if m.Number() != 0 {
			continue
		}
		if err := k.register(ctx, m); err != nil {
			return err
		}
		k.members = append(k.members, m)
	}
	return nil
}

// introduce has members that are registered know what they must before they fetch.
func (r *roll) introduce(ctx context.Context, members []*Member) error {
	k := r.keeper
	doubtful, err := k.Store.Instances.Doubtful(ctx, k.conn, k.numbers())
	if err != nil {
		return fmt.Errorf("look for crashed instances: %w", err)
	}
	for _, m := range members {
		if slices.Contains(doubtful, m.Endpoint) {
			m.Suspect()
		}
	}
	return k.beat(ctx)
}
