package sqlq

import (
	"context"
	"fmt"
)

// Running is an endpoint that [Client.Start] has taken up. It is safe for concurrent use.
type Running struct{ group *group }

// Start takes up an endpoint and returns once it receives: its queue exists, its subscriptions and routes are made, and it is among
// the instances. It handles messages until Stop is called, or Close of the Client. ctx bounds the preparation only; handlers get its values.
//
// Endpoints come and go while others run, of Run or of Start. All of a Client share its few receive connections, and one
// connection that listens and one that keeps house: fifty endpoints take no more connections than one. These begin with the
// first and end with the last. One endpoint's slow handlers do not keep another's messages waiting: with HandleTx
// handlers, which have a connection each while they run, this takes a Config.ReceiveConnections of 2 or more.
//
// Errors are those of Run; after one, nothing of the endpoint runs. ErrAlreadyRunning: the Client runs an endpoint of this
// name, or still drains it. ErrInvalidEndpoint also for a command that another running endpoint handles.
func (c *Client) Start(ctx context.Context, e Endpoint) (*Running, error) {
	r, err := start(ctx, c, e)
	if err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	return r, nil
}

func start(ctx context.Context, c *Client, e Endpoint) (*Running, error) {
	g, err := c.join(ctx, []Endpoint{e}, false)
	if err != nil {
		return nil, err
	}
	if err := g.begin(); err != nil {
		if g.isStopped() { // by Close
			err = ErrClosed
		}
		return nil, err
	}
	go func() {
		<-g.stopped
		g.end()
	}()
	return &Running{g}, nil
}

// Stop drains the endpoint and waits until it has ended: it stops fetching, lets running handlers finish for up to
// Config.DrainTimeout, settles what they did, and gives the rest back to other processes. Then its name can be started again. The
// other endpoints go on meanwhile. Stop may be called more than once, and after the end.
//
// When ctx ends the drain is cut short: the contexts of running handlers are cancelled, and their messages go back at once without
// using up an attempt. Stop waits for that too, which takes a moment or, if a handler ignores its context, some seconds (17 at
// most), and returns the error of ctx. So a handler that stops its own endpoint, which waits for that handler, goes on when ctx or
// Config.DrainTimeout ends.
func (r *Running) Stop(ctx context.Context) error {
	g := r.group
	g.stop()
	if err := awaitEnd(ctx, g); err != nil {
		return fmt.Errorf("stop endpoint %q: %w", g.endpoints[0].Name, err)
	}
	return nil
}

// SetConcurrency changes Endpoint.Concurrency, from 1 to 10,000. When it is lowered, handlers that run finish, and the next ones wait
// until fewer run. The instance table has the number with which the endpoint began. Error: ErrInvalidEndpoint.
func (r *Running) SetConcurrency(n int) error {
	if n < 1 || n > maxConcurrency {
		return fmt.Errorf("%w %q: a Concurrency of %d: it must be from 1 to 10,000", ErrInvalidEndpoint, r.group.endpoints[0].Name, n)
	}
	for _, in := range r.group.instances {
		in.slots.resize(n)
	}
	return nil
}

// Done returns a channel that is closed when the endpoint has ended.
func (r *Running) Done() <-chan struct{} { return r.group.ended }
