package trial

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/lab"
	"github.com/sqlq/sqlq/sqlq"
)

// kind is that of the trial's processes.
const kind = "trial"

// spec is what a child is told.
type spec struct {
	Role  string // what it does, see roles
	Name  string // for people
	URL   string
	Run   int // number of the process, no other has it
	Seed  uint64
	Trace string // file that it writes each handler call to
	Rate  int    // messages a second, of a sender
}

// BeChild runs a child and exits, in a process that is one. A program that starts trials calls it first.
func BeChild() { lab.Be(kind, beChild) }

func beChild(self *lab.Child) error {
	c := &child{Child: self}
	if err := self.Spec(&c.spec); err != nil {
		return err
	}
	return c.run()
}

// child is a process of the trial.
type child struct {
	*lab.Child
	spec
	pool   *pgxpool.Pool
	client *sqlq.Client
	held   atomic.Bool // a sender waits, because the backlog is long
	trace  *os.File
	calls  atomic.Int64
}

func (c *child) run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	ctx, cancel := c.Listen(ctx, func(word string) { c.held.Store(word == "hold") })
	defer cancel()
	var err error
	if c.trace, err = os.OpenFile(c.Trace, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		return err
	}
	defer c.trace.Close()
	c.pool, err = lab.NewPool(ctx, c.URL, 4, map[string]string{"application_name": "torture " + c.Name})
	if err != nil {
		return err
	}
	c.client, err = sqlq.Open(ctx, c.pool, sqlq.Config{
		Routes: routes, LeaseTime: lease, DrainTimeout: drainTimeout, ReceiveConnections: 2, BatchLimit: 100,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return err
	}
	if c.Role == senderRole {
		return c.send(ctx)
	}
	return c.client.Run(ctx, c.endpoints()...)
}

// note writes a line to the trace, which outlives the process.
func (c *child) note(queue string, k key, attempt int, what string) {
	fmt.Fprintf(c.trace, "%d %s %d %d %s\n", time.Now().UnixMilli(), queue, k, attempt, what)
}

// record writes an effect in a transaction of its own. It tries again until it knows that the effect is there: what is
// counted are the library's repeats, not those of this statement. It gives up when the context ends.
func (c *child) record(ctx context.Context, queue string, k key, attempt int) error {
	call := int64(c.Run)<<32 | c.calls.Add(1)
	for {
		bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := c.pool.Exec(bounded, `INSERT INTO effect (call, queue, k, run, attempt) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`, call, queue, k, c.Run, attempt)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// recordTx writes an effect in the receive transaction.
func (c *child) recordTx(ctx context.Context, tx pgx.Tx, queue string, k key, attempt int) error {
	_, err := tx.Exec(ctx, `INSERT INTO effect_tx (queue, k, run, attempt) VALUES ($1, $2, $3, $4)`, queue, k, c.Run, attempt)
	return err
}
