package bench

import (
	"context"
	"encoding/json"
	"errors"
	"io"
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

// receiverName is the application_name of a receiving process's pool. The library's own connections have theirs.
const receiverName = "sqlq bench receiver"

// spec is what a receiving process is to do. It comes on standard input, because the URL may hold a password.
type spec struct {
	URL         string
	Queues      []string // that it receives from
	Handler     handlerKind
	Sleep       time.Duration // of the sleeping ones
	Guarantee   Guarantee
	Retried     bool   // what fails is tried retriedAttempts times
	Concurrency int    // of each endpoint; 0: the library's default
	BatchLimit  int    // 0: the library's default
	Channel     string // of floorReceive
	Profile     string
}

type handlerKind string

const (
	counting      handlerKind = "count"   // decodes the message, and where it says when it was sent, notes how long ago
	sleeping      handlerKind = "sleep"   // for spec.Sleep
	sleepingExp   handlerKind = "exp"     // exponentially distributed, spec.Sleep on average
	ordering      handlerKind = "order"   // for spec.Sleep, and notes when it began with which message
	inserting     handlerKind = "insert"  // HandleTx: a row into the table of effects
	insertingMany handlerKind = "inserts" // HandleBatchTx: a row for each message into the table of effects
	updating      handlerKind = "update"  // HandleTx: one of a few hot rows
	idling        handlerKind = "idle"    // an event that nobody publishes, which any number of endpoints may handle
	failing       handlerKind = "fail"    // decodes the message and fails
	floorReceive  handlerKind = "floor"   // no library: waits for notifications and deletes the row that each names
)

// report is a line from a receiving process.
type report struct {
	Ready   bool      // connected; waits for the word
	At      int64     `json:",omitempty"` // nanoseconds since 1970
	Handled int64     `json:",omitempty"` // up to then
	Done    *receipts `json:",omitempty"` // the last line
	Error   string    `json:",omitempty"`
}

// receipts is what a receiving process has to tell in the end.
type receipts struct {
	Handled     int64
	First, Last int64 // when the first handler was called and the last one was seen to have returned, in ns since 1970
	Took        []time.Duration
	Slept       time.Duration // in all handlers together
	PeakMemory  int64         // bytes; 0: unknown
	CPU         time.Duration // of the process, from the word on; 0: unknown
	Order       handledOrder  // of those that note it
}

// begin is the word at which a receiving process receives.
const begin = "go"

// Receive is a receiving process: it reads a spec from in, says on out that it is ready, begins when it is told to, tells how
// far it is, and shuts down when in ends, as it does when the parent dismisses it or has died.
func Receive(ctx context.Context, in io.Reader, out io.Writer) error {
	r := &receiving{Child: lab.NewChild(in, out)}
	err := r.run(ctx)
	if err != nil {
		r.Tell(report{Error: err.Error()})
	}
	return err
}

type receiving struct {
	*lab.Child
	spec spec

	handled atomic.Int64
	first   atomic.Int64
	slept   atomic.Int64

	counted, last int64 // what seen saw, and when; owned by watch, then by run

	mu    sync.Mutex
	took  []time.Duration
	order handledOrder
}

func (r *receiving) run(ctx context.Context) error {
	if err := r.Spec(&r.spec); err != nil {
		return err
	}
	pool, err := lab.NewPool(ctx, r.spec.URL, 4, map[string]string{"application_name": receiverName})
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := pool.Ping(ctx); err != nil {
		return err
	}
	receive := r.receive
	if r.spec.Handler == floorReceive {
		receive = r.receiveFloor
	}
	r.Tell(report{Ready: true})
	if _, more := r.Word(); !more {
		return nil
	}
	stopProfile := func() {}
	if r.spec.Profile != "" {
		if stopProfile, err = profileTo(r.spec.Profile); err != nil {
			return err
		}
	}
	began := ownTime()
	ctx, stop := r.Listen(ctx, nil)
	defer stop()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		r.watch(ctx)
	}()
	err = receive(ctx, pool)
	stop()
	<-watched
	stopProfile()
	if err != nil {
		return err
	}
	r.seen()
	r.Tell(report{Done: &receipts{
		Handled: r.handled.Load(), First: r.first.Load(), Last: r.last, Took: r.took, Slept: time.Duration(r.slept.Load()),
		PeakMemory: peakMemory(), CPU: ownTime() - began, Order: r.order,
	}})
	return nil
}

// receive runs endpoints until ctx ends.
func (r *receiving) receive(ctx context.Context, pool *pgxpool.Pool) error {
	client, err := sqlq.Open(ctx, pool, sqlq.Config{Schema: schema, BatchLimit: r.spec.BatchLimit, Logger: r.log()})
	if ctx.Err() != nil {
		return nil // others were quicker
	}
	if err != nil {
		return err
	}
	var endpoints []sqlq.Endpoint
	for _, q := range r.spec.Queues {
		endpoints = append(endpoints, r.endpoint(q))
	}
	return client.Run(ctx, endpoints...)
}

// endpoint returns the endpoint of a queue.
func (r *receiving) endpoint(queue string) sqlq.Endpoint {
	e := sqlq.Endpoint{Name: queue, Concurrency: r.spec.Concurrency, Handlers: []sqlq.Handler{r.handler()}, AtMostOnce: r.spec.Guarantee == AtMostOnce}
	if r.spec.Guarantee == Deduplicate {
		e.Deduplicate = time.Hour
	}
	if r.spec.Handler == failing {
		e.Breaker.Off = true
		e.Retry = sqlq.RetryPolicy{Immediate: -1, Delays: []time.Duration{}}
		if r.spec.Retried {
			e.Retry = sqlq.RetryPolicy{Immediate: 1, Delays: []time.Duration{10 * time.Millisecond}}
		}
	}
	return e
}

// log is what the library logs to: what it warns of goes to the parent, who shows it, but not that messages fail which are to fail.
func (r *receiving) log() *slog.Logger {
	if r.spec.Handler == failing {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// errPoison is what a failing handler fails with.
var errPoison = errors.New("charge the card of customer 17: no such customer")

// watch tells the parent how many messages have been handled.
func (r *receiving) watch(ctx context.Context) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	told := int64(0)
	for i := 0; ctx.Err() == nil; i++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		if n := r.seen(); n != told && i%4 == 0 {
			told = n
			r.Tell(report{At: r.last, Handled: n})
		}
	}
}

// seen notes when the count was last seen to have grown. To take the time in every handler would cost those that do
// nothing else.
func (r *receiving) seen() int64 {
	n := r.handled.Load()
	if n != r.counted {
		r.counted, r.last = n, time.Now().UnixNano()
	}
	return n
}

// count counts handled messages.
func (r *receiving) count(messages int) {
	if n := int64(messages); r.handled.Add(n) == n {
		r.first.Store(time.Now().UnixNano())
	}
}

func (r *receiving) handler() sqlq.Handler {
	switch r.spec.Handler {
	case sleeping, sleepingExp:
		return sqlq.Handle(func(context.Context, *sqlq.Delivery[note]) error {
			d := r.spec.Sleep
			if r.spec.Handler == sleepingExp {
				d = time.Duration(rand.ExpFloat64() * float64(d))
			}
			began := time.Now()
			time.Sleep(d)
			r.slept.Add(int64(time.Since(began)))
			r.count(1)
			return nil
		})
	case ordering:
		return sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[note]) error {
			r.mu.Lock()
			r.order.add(d.Message.N, time.Now().UnixNano())
			r.mu.Unlock()
			time.Sleep(r.spec.Sleep)
			r.count(1)
			return nil
		})
	case inserting:
		return sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[note]) error {
			_, err := tx.Exec(ctx, insertEffect, d.Message.N, effectText)
			if err == nil {
				r.count(1)
			}
			return err
		})
	case insertingMany:
		return sqlq.HandleBatchTx(sqlq.Batch{Most: batchMost}, func(ctx context.Context, tx pgx.Tx, ds []*sqlq.BatchDelivery[note]) error {
			ns := make([]int64, len(ds))
			for i, d := range ds {
				ns[i] = d.Message.N
			}
			_, err := tx.Exec(ctx, insertEffects, ns, effectText)
			if err == nil {
				r.count(len(ds))
			}
			return err
		})
	case updating:
		return sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[note]) error {
			_, err := tx.Exec(ctx, updateHot, hotRow(d.Message.N))
			if err == nil {
				r.count(1)
			}
			return err
		})
	case failing:
		return sqlq.Handle(func(context.Context, *sqlq.Delivery[note]) error {
			r.count(1)
			return errPoison
		})
	case idling:
		return sqlq.Handle(func(context.Context, *sqlq.Delivery[nothingHappened]) error { return nil })
	default:
		return sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[note]) error {
			r.count(1)
			r.arrived(d.Message)
			return nil
		})
	}
}

// arrived notes how long ago a message was sent, or was due.
func (r *receiving) arrived(m note) {
	if m.At == 0 {
		return
	}
	took := time.Duration(time.Now().UnixNano() - m.At)
	r.mu.Lock()
	r.took = append(r.took, took)
	r.mu.Unlock()
}

// receiveFloor takes messages without the library: a notification names the row, which is deleted. The message is in
// hand before the deletion is committed, as the library's are.
func (r *receiving) receiveFloor(ctx context.Context, pool *pgxpool.Pool) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, `LISTEN `+r.spec.Channel); err != nil {
		return err
	}
	r.Tell(report{At: time.Now().UnixNano()}) // it listens
	for {
		n, err := conn.Conn().WaitForNotification(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.takeFloor(context.WithoutCancel(ctx), conn, n.Payload); err != nil {
			return err
		}
	}
}

func (r *receiving) takeFloor(ctx context.Context, conn *pgxpool.Conn, seq string) error {
	var body []byte
	b := &pgx.Batch{}
	b.Queue(`BEGIN`)
	b.Queue(`DELETE FROM `+table(floorQueue)+` WHERE seq = $1::text::bigint RETURNING body`, seq).QueryRow(func(row pgx.Row) error {
		return row.Scan(&body)
	})
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	var m note
	if err := json.Unmarshal(body, &m); err != nil {
		return err
	}
	r.count(1)
	r.arrived(m)
	_, err := conn.Exec(ctx, `COMMIT`)
	return err
}
