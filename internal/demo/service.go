package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// shop starts and stops the services, each with its own pool and sqlq.Client, as if it were a separate process.
type shop struct {
	database *database
	operator *ops.Ops
	log      *slog.Logger
	fail     context.CancelCauseFunc // ends the story when a service ends with an error
	running  sync.WaitGroup
}

// service is a running service.
type service struct {
	name  string
	stop  context.CancelFunc
	ended chan struct{}
}

// start runs an endpoint and returns once it handles messages; by then its queue exists and is subscribed. The endpoint may
// use the pool, which has a few spare connections.
func (s *shop) start(ctx context.Context, name string, receiveConnections int, endpoint func(*pgxpool.Pool) sqlq.Endpoint) (*service, error) {
	pool, err := s.database.connect(ctx, name, 4)
	if err != nil {
		return nil, err
	}
	client, err := sqlq.Open(ctx, pool, sqlq.Config{
		Schema: queueSchema, Logger: s.log, ReceiveConnections: receiveConnections, DrainTimeout: 5 * time.Second,
		ListenURL: s.database.listenURL,
	})
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("service %s: %w", name, err)
	}
	runs, stop := context.WithCancel(ctx)
	v := &service{name: name, stop: stop, ended: make(chan struct{})}
	s.running.Go(func() {
		defer close(v.ended)
		defer pool.Close()
		if err := client.Run(runs, endpoint(pool)); err != nil {
			s.fail(fmt.Errorf("service %s: %w", name, err))
		}
	})
	if err := s.awaitInstance(ctx, name); err != nil {
		v.shutDown()
		return nil, fmt.Errorf("service %s: %w", name, err)
	}
	return v, nil
}

// awaitInstance waits until a process of the endpoint has registered, which it does after subscribing.
func (s *shop) awaitInstance(ctx context.Context, name string) error {
	return poll(ctx, func() (bool, error) {
		queue, err := s.operator.Queues.Show(ctx, name)
		var none *ops.NoQueueError
		if errors.As(err, &none) {
			return false, nil
		}
		return queue.Instances > 0, err
	})
}

// shutDown stops the service and returns once it has finished what it had in hand.
func (v *service) shutDown() {
	v.stop()
	<-v.ended
}

// lookEvery is how often the story checks the database while it waits for a state.
const lookEvery = 20 * time.Millisecond

// waitAtMost limits each wait of the story; the longest takes a few seconds, a little more on a slow machine.
const waitAtMost = time.Minute

// poll calls f immediately and then every lookEvery until it returns true or an error, or ctx ends.
func poll(ctx context.Context, f func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, waitAtMost, fmt.Errorf("it did not happen within %v", waitAtMost))
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		done, err := f()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil || done {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
