package failover

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/lab"
	"github.com/sqlq/sqlq/sqlq"
)

// spec is what a process is to do.
type spec struct {
	URL     string
	Receive bool
	First   int64 // number of a sender's first message
	Rate    int   // of a sender: messages a second
}

// told is what a process says, line by line. A sender tells of each attempt to send, a receiver of each handler that has
// returned without an error, whatever then becomes of it.
type told struct {
	First int64  `json:",omitempty"` // the first of Count numbers, which were sent together
	Count int    `json:",omitempty"`
	Acked bool   `json:",omitempty"` // else nobody knows
	Began int64  `json:",omitempty"` // when the attempt began, in nanoseconds since 1970
	Ended int64  `json:",omitempty"`
	Err   string `json:",omitempty"`
	Plain int64  `json:",omitempty"` // the number of a message that a plain handler has handled
}

// Even numbers have a HandleTx handler, odd ones a plain one.
type effect struct {
	N int64 `json:"n"`
}

type plain struct {
	N int64 `json:"n"`
}

func (effect) MessageType() string { return "failover.Effect" }
func (plain) MessageType() string  { return "failover.Plain" }

const (
	effectsQueue = "effects"
	plainQueue   = "plain"
)

var queues = []string{effectsQueue, plainQueue}

func message(n int64) sqlq.Message {
	if n%2 == 0 {
		return effect{n}
	}
	return plain{n}
}

// kind is that of the scenario's processes.
const kind = "failover"

// BeChild does what a process of the scenario does, and exits, if this is one. A main that is to be Options.Child calls it
// first.
func BeChild() { lab.Be(kind, beChild) }

// beChild is a sending or receiving process. It returns when it is dismissed or whoever started it has died.
func beChild(self *lab.Child) error {
	var s spec
	if err := self.Spec(&s); err != nil {
		return err
	}
	ctx, end := self.Listen(context.Background(), nil)
	defer end()
	pool, err := pgxpool.New(ctx, s.URL)
	if err != nil {
		return err
	}
	defer pool.Close()
	client, err := sqlq.Open(ctx, pool, sqlq.Config{
		Routes: map[string]string{effect{}.MessageType(): effectsQueue, plain{}.MessageType(): plainQueue},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	c := &child{Child: self, spec: s, client: client}
	if s.Receive {
		return c.receive(ctx)
	}
	c.send(ctx)
	return nil
}

// child is that process at work.
type child struct {
	*lab.Child
	spec
	client *sqlq.Client
}

// atOnce is how many goroutines of a process send, so that sends share transactions.
const atOnce = 4

func (c *child) send(ctx context.Context) {
	var next atomic.Int64
	next.Store(c.First)
	var all sync.WaitGroup
	for range atOnce {
		all.Go(func() {
			for ctx.Err() == nil {
				n := 1
				if rand.IntN(3) == 0 {
					n = 2 + rand.IntN(30)
				}
				c.sendSome(next.Add(int64(n))-int64(n), n)
				perSecond := float64(c.Rate) / atOnce
				time.Sleep(time.Duration(float64(n) / perSecond * float64(time.Second)))
			}
		})
	}
	all.Wait()
}

// sendSome tries once, and to the end: what was cut off has an outcome that nobody knows.
func (c *child) sendSome(first int64, n int) {
	ctx, cancel := context.WithTimeout(context.Background(), sendWithin)
	defer cancel()
	t := told{First: first, Count: n, Began: time.Now().UnixNano()}
	var err error
	if n == 1 {
		err = c.client.Send(ctx, message(first))
	} else {
		ms := make([]sqlq.Message, n)
		for i := range ms {
			ms[i] = message(first + int64(i))
		}
		err = c.client.SendMany(ctx, ms)
	}
	t.Ended = time.Now().UnixNano()
	if t.Acked = err == nil; err != nil {
		t.Err = err.Error()
	}
	c.Tell(t)
}

const sendWithin = 10 * time.Second

func (c *child) receive(ctx context.Context) error {
	pid := os.Getpid()
	return c.client.Run(ctx,
		sqlq.Endpoint{Name: effectsQueue, Concurrency: 16, Handlers: []sqlq.Handler{
			sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[effect]) error {
				_, err := tx.Exec(ctx, `INSERT INTO effect (n, pid) VALUES ($1, $2)`, d.Message.N, pid)
				return err
			})}},
		sqlq.Endpoint{Name: plainQueue, Concurrency: 16, Handlers: []sqlq.Handler{
			sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[plain]) error {
				c.Tell(told{Plain: d.Message.N, Ended: time.Now().UnixNano()})
				return nil
			})}})
}
