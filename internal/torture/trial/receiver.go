package trial

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/lab"
	"github.com/sqlq/sqlq/sqlq"
)

// Roles of children. Poison has receivers of its own: its crashes are many, and make all others of an endpoint careful.
const (
	senderRole   = "sender"
	receiverRole = "receiver"
	poisonRole   = "poison"
)

// retries outlast most of the faults. Six attempts.
var retries = sqlq.RetryPolicy{Immediate: 1, Delays: []time.Duration{200 * time.Millisecond, 1500 * time.Millisecond}}

// poisonRetries: three attempts, because each costs a process.
var poisonRetries = sqlq.RetryPolicy{Immediate: 2, Delays: []time.Duration{}}

// attemptsOf is how often a failing message of a queue is tried.
func attemptsOf(queue string) int {
	switch queue {
	case poisonQueue:
		return 3
	case mostQueue:
		return 1
	}
	return 6
}

func (c *child) endpoints() []sqlq.Endpoint {
	if c.Role == poisonRole {
		return []sqlq.Endpoint{{Name: poisonQueue, Concurrency: 8, Retry: poisonRetries, Handlers: []sqlq.Handler{
			sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[poison]) error {
				return c.drink(ctx, d.Incoming, d.Message.work)
			})}}}
	}
	return []sqlq.Endpoint{
		{Name: plainQueue, Concurrency: 24, Retry: retries, Handlers: []sqlq.Handler{sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[plain]) error {
			return c.handle(ctx, nil, d.Incoming, d.Message.K)
		})}},
		{Name: exactQueue, Concurrency: 2, Retry: retries, Handlers: []sqlq.Handler{sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[exact]) error {
			return c.handle(ctx, tx, d.Incoming, d.Message.K)
		})}},
		{Name: onwardQueue, Concurrency: 2, Retry: retries, Handlers: []sqlq.Handler{sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[onward]) error {
			return c.handle(ctx, tx, d.Incoming, d.Message.K)
		})}},
		{Name: hearsQueue, Concurrency: 24, Retry: retries, Handlers: []sqlq.Handler{sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[event]) error {
			return c.handle(ctx, nil, d.Incoming, d.Message.K)
		})}},
		{Name: mostQueue, Concurrency: 24, AtMostOnce: true, Handlers: []sqlq.Handler{sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[most]) error {
			return c.handle(ctx, nil, d.Incoming, d.Message.K)
		})}},
		{Name: onceQueue, Concurrency: 24, Retry: retries, Deduplicate: window, Handlers: []sqlq.Handler{sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[once]) error {
			return c.handle(ctx, nil, d.Incoming, d.Message.K)
		})}},
		{Name: booksQueue, Concurrency: 2, Retry: retries, Handlers: []sqlq.Handler{sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[event]) error {
			return c.handle(ctx, tx, d.Incoming, d.Message.K)
		})}},
	}
}

// errDeed is what messages fail with that ought to fail. Whatever else is in the error table came of a fault.
var errDeed = errors.New("the message says so")

// handle does what the message's key says. A HandleTx handler writes its effect before it fails, so that an effect of a
// failed attempt would be seen, and so does one that is to be called once at most.
func (c *child) handle(ctx context.Context, tx pgx.Tx, in *sqlq.Incoming, k key) error {
	c.note(in.Endpoint, k, in.Attempt, "begins")
	do := deedOf(in.Endpoint, k)
	if do.sendsOnFrom(in.Endpoint) {
		if err := in.Send(onward{work{K: k}}); err != nil {
			return err
		}
	}
	if tx != nil {
		if err := c.recordTx(ctx, tx, in.Endpoint, k, in.Attempt); err != nil {
			return err
		}
	}
	if in.Endpoint == mostQueue {
		if err := c.record(ctx, in.Endpoint, k, in.Attempt); err != nil {
			return err
		}
	}
	switch {
	case do == slowly:
		time.Sleep(time.Duration(100+mix(uint64(k)*3)%300) * time.Millisecond)
	case do == failEver, do == failOnce && in.Attempt <= 1, do == failLong && in.Attempt <= 4:
		return errDeed
	case do == giveUp:
		return sqlq.Unrecoverable(errDeed)
	case do == panics && in.Attempt <= 1, do == panicEver:
		panic(errDeed)
	}
	if tx == nil && in.Endpoint != mostQueue {
		if err := c.record(ctx, in.Endpoint, k, in.Attempt); err != nil {
			return err
		}
	}
	c.note(in.Endpoint, k, in.Attempt, "done")
	return nil
}

// gorge takes memory until the process dies: at a limit of its own, so that the machine does not suffer.
func gorge() {
	lab.LimitMemory()
	var all [][]byte
	for range 64 {
		piece := make([]byte, 16<<20)
		for i := 0; i < len(piece); i += 4096 {
			piece[i] = 1
		}
		all = append(all, piece)
	}
	fmt.Fprintln(os.Stderr, "no limit on memory:", len(all), "pieces")
	lab.KillSelf()
}

// drink handles poison and its neighbours.
func (c *child) drink(ctx context.Context, in *sqlq.Incoming, w work) error {
	c.note(in.Endpoint, w.K, in.Attempt, "begins "+string(w.Do))
	switch w.Do {
	case exits:
		os.Exit(3)
	case kills:
		lab.KillSelf()
	case crashes:
		go panic(fmt.Sprint("message ", w.K, " crashes its process"))
		select {}
	case gorges:
		gorge()
	case hangs:
		c.Tell(line{Hangs: w.K})
		select {}
	case panicEver:
		panic(errDeed)
	case differs:
		return fmt.Errorf("attempt %d, %d: %w", in.Attempt, time.Now().UnixNano(), errDeed)
	}
	time.Sleep(10 * time.Millisecond) // so that neighbours are in hand when a process dies
	return c.record(ctx, in.Endpoint, w.K, in.Attempt)
}
