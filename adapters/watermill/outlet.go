package sqlqwatermill

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/sqlq/sqlq/sqlq"
)

// outlet is the endpoint that receives from one queue, for all subscriptions that share a client: a Client runs an endpoint once. Its
// handler offers each message to the subscriptions, one of which takes it, and waits for the Ack.
type outlet struct {
	outletKey
	eventType string
	settings  settings
	offers    chan offer // unbuffered: what is taken is handed out

	members int // subscriptions that have joined or are about to; guarded by outlets.mu

	mu      sync.Mutex // is held while the endpoint is started, stopped and changed
	slots   int        // of all subscriptions together
	running *sqlq.Running
}

type outletKey struct {
	client *sqlq.Client
	queue  string
}

// settings are those of the endpoint, which all subscriptions share.
type settings struct {
	retry       *sqlq.RetryPolicy // nil: a Nack is no failed attempt
	deduplicate time.Duration
}

// offer is a message that the handler offers to the subscriptions. Who takes it sends one result.
type offer struct {
	ctx      context.Context // ends when the handler must return
	delivery *sqlq.Delivery[sqlq.Raw]
	result   chan result // with room for one
}

// result is what became of an offer.
type result struct {
	end   ending
	delay time.Duration // of nacked
}

type ending int

const (
	acked ending = iota
	nacked
	untaken // nobody has decided
)

// outlets are those that have members. A process has many clients only in tests.
var outlets = struct {
	mu  sync.Mutex // no other lock is taken while it is held
	all map[outletKey]*outlet
}{all: map[outletKey]*outlet{}}

func newOutlet(client *sqlq.Client, queue, eventType string, s settings) *outlet {
	return &outlet{outletKey: outletKey{client, queue}, eventType: eventType, settings: s, offers: make(chan offer)}
}

// join adds a subscription with a number of slots to the outlet of its queue, the wanted one if there is none. The channel is closed when
// the outlet stops for another reason than that all have left.
func join(ctx context.Context, wanted *outlet, slots int) (*outlet, <-chan struct{}, error) {
	outlets.mu.Lock()
	o := outlets.all[wanted.outletKey]
	if o == nil {
		o = wanted
		outlets.all[o.outletKey] = o
	}
	o.members++
	outlets.mu.Unlock()
	stopped, err := o.add(ctx, wanted.settings, slots)
	if err != nil {
		o.release()
		return nil, nil, err
	}
	return o, stopped, nil
}

// leave removes a subscription, which has taken its last offer. After the last one the endpoint is stopped, and what its handlers still
// offer is given back.
func leave(o *outlet, slots int) error {
	defer o.release()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.slots -= slots
	if isClosed(o.running.Done()) {
		return nil
	}
	if o.slots > 0 {
		return o.running.SetConcurrency(o.slots)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // there is nobody to take what is offered
	err := o.running.Stop(ctx)
	if errors.Is(err, context.Canceled) {
		err = nil // the stop was cut short, as it should be
	}
	<-o.running.Done()
	return err
}

// release forgets an outlet without members.
func (o *outlet) release() {
	outlets.mu.Lock()
	defer outlets.mu.Unlock()
	if o.members--; o.members == 0 {
		delete(outlets.all, o.outletKey)
	}
}

// add makes room for a subscription, and starts the endpoint if it does not run.
func (o *outlet) add(ctx context.Context, s settings, slots int) (stopped <-chan struct{}, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.slots == 0: // what it was before does not matter
		o.settings = s
	case !reflect.DeepEqual(o.settings, s):
		return nil, fmt.Errorf("%w (queue %q)", ErrOtherSettings, o.queue)
	case isClosed(o.running.Done()):
		return nil, sqlq.ErrClosed
	}
	if o.slots == 0 {
		if o.running, err = o.client.Start(ctx, o.endpoint(slots)); err != nil {
			return nil, err
		}
	} else if err := o.running.SetConcurrency(o.slots + slots); err != nil {
		return nil, err
	}
	o.slots += slots
	return o.running.Done(), nil
}

func (o *outlet) endpoint(slots int) sqlq.Endpoint {
	e := sqlq.Endpoint{
		Name:        o.queue,
		Handlers:    []sqlq.Handler{sqlq.HandleRaw(o.eventType, o.handle)},
		Subscribe:   []string{o.eventType},
		Concurrency: slots,
		Deduplicate: o.settings.deduplicate,
	}
	if o.settings.retry != nil {
		e.Retry = *o.settings.retry
	}
	return e
}

// handle offers a message until it is acked. If its context ends before, because the endpoint stops, the message is given back, which
// uses up no attempt.
func (o *outlet) handle(ctx context.Context, d *sqlq.Delivery[sqlq.Raw]) error {
	for {
		offered := offer{ctx: ctx, delivery: d, result: make(chan result, 1)}
		select {
		case o.offers <- offered:
		case <-ctx.Done():
			return ctx.Err()
		}
		r := <-offered.result
		switch {
		case r.end == acked:
			return nil
		case r.end == nacked && o.settings.retry != nil:
			return ErrNacked
		case r.end == nacked && r.delay > 0:
			wait := time.NewTimer(r.delay)
			select {
			case <-wait.C:
			case <-ctx.Done():
				wait.Stop()
				return ctx.Err()
			}
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}
