package sqlq_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// The messages of the model say themselves what their handlers do, so that what becomes of them is known beforehand.

// task is the body of every message of the model.
type task struct {
	Key      string    // what the message is known by; handlers add to it for what they send
	Fail     int       `json:",omitempty"` // so many attempts fail
	Back     int       `json:",omitempty"` // so often it is given back before
	How      string    `json:",omitempty"` // how they do
	Slow     int       `json:",omitempty"` // milliseconds
	Via      string    `json:",omitempty"` // HandleTx: how it writes its effect
	Hot      int       `json:",omitempty"` // HandleTx: the contended row that it raises; 0: none
	Children []child   `json:",omitempty"` // sent with the delivery; failing attempts send them too, in vain
	Now      *child    `json:",omitempty"` // sent at once by each attempt, with Immediately
	Header   string    `json:",omitempty"` // of the header "model"
	Size     int       `json:",omitempty"` // length of Pad
	ID       string    `json:",omitempty"` // the message's id, where the sender chose it
	NotYet   time.Time `json:",omitzero"`  // not to be handled before
	Pad      string    `json:",omitempty"`
}

// child is a message that a handler sends.
type child struct {
	Kind  string
	Delay int  `json:",omitempty"` // milliseconds
	Tx    bool `json:",omitempty"` // by SendTx or PublishTx in the receive transaction; plain handlers have none
	Task  task
}

// Ways to fail.
const (
	byError         = "error"
	byPanic         = "panic"
	byRetryAfter    = "retry after"
	byUnrecoverable = "unrecoverable"
	byLateFinal     = "unrecoverable the second time"
	bySQLError      = "sql error"          // HandleTx
	bySwallowing    = "swallowed error"    // HandleTx
	byConstraint    = "refused at commit"  // HandleTx: a deferred constraint
	byMissingQueue  = "refused at settle"  // sends to a queue that is not there
	byUnknownType   = "no handler"         // decided without a handler
	byGarbledBody   = "body not decodable" // likewise
)

var errModel = errors.New("the model wants it so")

type (
	plainTask   struct{ task } // command to endpoint plain, Handle
	txTask      struct{ task } // command to endpoint tx, HandleTx
	mixedTask   struct{ task } // command to endpoint mixed, Handle
	mixedTxTask struct{ task } // command to endpoint mixed, HandleTx
	happened    struct{ task } // event for plain and tx
	noticed     struct{ task } // event for plain, Handle, and mixed, HandleTx
	mostTask    struct{ task } // command to endpoint most, Handle, at most once
	onceTask    struct{ task } // command to endpoint once, Handle, which deduplicates
	onceTxTask  struct{ task } // command to endpoint once, HandleTx
	strangeTask struct{ task } // command without a handler
	garbledTask struct {       // a plainTask that cannot be read
		Key  string
		Fail string
	}
)

func (plainTask) MessageType() string   { return "model.Plain" }
func (txTask) MessageType() string      { return "model.Tx" }
func (mixedTask) MessageType() string   { return "model.Mixed" }
func (mixedTxTask) MessageType() string { return "model.MixedTx" }
func (happened) MessageType() string    { return "model.Happened" }
func (noticed) MessageType() string     { return "model.Noticed" }
func (mostTask) MessageType() string    { return "model.Most" }
func (onceTask) MessageType() string    { return "model.Once" }
func (onceTxTask) MessageType() string  { return "model.OnceTx" }
func (strangeTask) MessageType() string { return "model.Strange" }
func (garbledTask) MessageType() string { return "model.Plain" }
func (happened) IsEvent()               {}
func (noticed) IsEvent()                {}

var modelRoutes = map[string]string{
	"model.Plain": "plain", "model.Tx": "tx", "model.Mixed": "mixed", "model.MixedTx": "mixed", "model.Strange": "plain",
	"model.Most": "most", "model.Once": "once", "model.OnceTx": "once",
}

// kinds are the messages by name: where they go, who handles them in the receive transaction, and how one is made.
var kinds = map[string]struct {
	queues []string
	inTx   []string
	event  bool
	make   func(task) sqlq.Message
}{
	"plain":    {queues: []string{"plain"}, make: func(t task) sqlq.Message { return plainTask{t} }},
	"tx":       {queues: []string{"tx"}, inTx: []string{"tx"}, make: func(t task) sqlq.Message { return txTask{t} }},
	"mixed":    {queues: []string{"mixed"}, make: func(t task) sqlq.Message { return mixedTask{t} }},
	"mixedTx":  {queues: []string{"mixed"}, inTx: []string{"mixed"}, make: func(t task) sqlq.Message { return mixedTxTask{t} }},
	"happened": {queues: []string{"plain", "tx"}, inTx: []string{"tx"}, event: true, make: func(t task) sqlq.Message { return happened{t} }},
	"noticed":  {queues: []string{"plain", "mixed"}, inTx: []string{"mixed"}, event: true, make: func(t task) sqlq.Message { return noticed{t} }},
	"most":     {queues: []string{"most"}, make: func(t task) sqlq.Message { return mostTask{t} }},
	"once":     {queues: []string{"once"}, make: func(t task) sqlq.Message { return onceTask{t} }},
	"onceTx":   {queues: []string{"once"}, inTx: []string{"once"}, make: func(t task) sqlq.Message { return onceTxTask{t} }},
	"strange":  {queues: []string{"plain"}, make: func(t task) sqlq.Message { return strangeTask{t} }},
	"garbled":  {queues: []string{"plain"}, make: func(t task) sqlq.Message { return garbledTask{Key: t.Key, Fail: "x"} }},
}

// modelEndpoints makes the endpoints with these names for a client.
func (w *world) modelEndpoints(c *sqlq.Client, concurrency int, names ...string) []sqlq.Endpoint {
	all := map[string][]sqlq.Handler{
		"plain": {handlePlain[plainTask](w, c), handlePlain[happened](w, c), handlePlain[noticed](w, c)},
		"tx":    {handleInTx[txTask](w, c), handleInTx[happened](w, c)},
		"mixed": {handlePlain[mixedTask](w, c), handleInTx[mixedTxTask](w, c), handleInTx[noticed](w, c)},
		"most":  {handlePlain[mostTask](w, c)},
		"once":  {handlePlain[onceTask](w, c), handleInTx[onceTxTask](w, c)},
	}
	if w.batches {
		// Not those of Handle: what a call that fails has done for others than the message at fault is done again, which the books
		// would take for a fault of the library.
		all["tx"] = []sqlq.Handler{handleBatchTx[txTask](w, c), handleBatchTx[happened](w, c)}
		all["mixed"][1] = handleBatchTx[mixedTxTask](w, c)
		all["once"][1] = handleBatchTx[onceTxTask](w, c)
	}
	var endpoints []sqlq.Endpoint
	for _, name := range names {
		e := sqlq.Endpoint{Name: name, Concurrency: concurrency, Retry: w.policies[name], Handlers: all[name], AtMostOnce: name == "most", UnknownWait: -1}
		e.Settled = w.tell
		if name == "once" {
			e.Deduplicate = time.Hour
		}
		endpoints = append(endpoints, e)
	}
	return endpoints
}

type tasked interface {
	sqlq.Message
	body() task
}

func (t task) body() task { return t }

func handlePlain[T tasked](w *world, c *sqlq.Client) sqlq.Handler {
	return sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[T]) error {
		return w.handle(ctx, nil, c, d.Incoming, d.Message.body())
	})
}

func handleInTx[T tasked](w *world, c *sqlq.Client) sqlq.Handler {
	return sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[T]) error {
		return w.handle(ctx, tx, c, d.Incoming, d.Message.body())
	})
}

// handleBatchTx handles the messages of a batch one after the other, and ends with the first that fails: nothing says whose fault it is.
func handleBatchTx[T tasked](w *world, c *sqlq.Client) sqlq.Handler {
	return sqlq.HandleBatchTx(sqlq.Batch{Most: 20}, func(ctx context.Context, tx pgx.Tx, ds []*sqlq.BatchDelivery[T]) error {
		for _, d := range ds {
			if err := w.handle(ctx, tx, c, d.Incoming, d.Message.body()); err != nil {
				return err
			}
		}
		return nil
	})
}

// handle is every handler of the model: it does what the message says and notes that it was here.
func (w *world) handle(ctx context.Context, tx pgx.Tx, c *sqlq.Client, in *sqlq.Incoming, t task) (err error) {
	v := w.arrive(in, t.Key, t.Back)
	failing := in.Attempt <= t.Fail || v.givesBack
	defer func() { w.leave(v, err == nil && !failing) }()
	w.examine(in, t)
	if tx != nil {
		if err := writeEffect(ctx, tx, t, in.Endpoint); err != nil {
			return err
		}
	}
	for i, ch := range t.Children {
		key := fmt.Sprintf("%s@%s/%d", t.Key, in.Endpoint, i)
		if failing {
			key += "!in vain"
		}
		if err := w.sendChild(ctx, tx, c, in, ch, key); err != nil {
			return err
		}
	}
	if t.Now != nil {
		w.sendAtOnce(ctx, c, *t.Now, fmt.Sprintf("%s@%s!%d", t.Key, in.Endpoint, v.n))
	}
	if t.Slow > 0 {
		timer := time.NewTimer(time.Duration(t.Slow) * time.Millisecond)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if v.givesBack {
		return sqlq.GiveBack(time.Duration(v.n%3)*5*time.Millisecond, "the model wants it so")
	}
	if !failing {
		return nil
	}
	return fail(ctx, tx, in, t)
}

// examine holds what arrived against what was sent.
func (w *world) examine(in *sqlq.Incoming, t task) {
	switch {
	case len(t.Pad) != t.Size || strings.Trim(t.Pad, "x") != "":
		w.problem("%s on %s: %d bytes of padding arrived, %d were sent", t.Key, in.Endpoint, len(t.Pad), t.Size)
	case in.Headers["model"] != t.Header:
		w.problem("%s on %s: header %q arrived, %q was sent", t.Key, in.Endpoint, in.Headers["model"], t.Header)
	case t.ID != "" && in.ID.String() != t.ID:
		w.problem("%s on %s: it has id %v, %v was given", t.Key, in.Endpoint, in.ID, t.ID)
	case time.Now().Before(t.NotYet):
		w.problem("%s on %s: handled %v too early", t.Key, in.Endpoint, time.Until(t.NotYet))
	}
}

// writeEffect leaves a row for the message, in one of the many ways that a transaction has.
func writeEffect(ctx context.Context, tx pgx.Tx, t task, queue string) (err error) {
	const insert = `INSERT INTO effect (key, queue) VALUES ($1, $2)`
	switch t.Via {
	case "row":
		var key string
		err = tx.QueryRow(ctx, insert+` RETURNING key`, t.Key, queue).Scan(&key)
	case "rows":
		var rows pgx.Rows
		if rows, err = tx.Query(ctx, insert+` RETURNING key`, t.Key, queue); err == nil {
			_, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
	case "batch":
		b := &pgx.Batch{}
		b.Queue(`SELECT 1`)
		b.Queue(insert, t.Key, queue)
		err = tx.SendBatch(ctx, b).Close()
	case "copy":
		_, err = tx.CopyFrom(ctx, pgx.Identifier{"effect"}, []string{"key", "queue"}, pgx.CopyFromRows([][]any{{t.Key, queue}}))
	case "nested":
		err = pgx.BeginFunc(ctx, tx, func(inner pgx.Tx) error {
			_, err := inner.Exec(ctx, insert, t.Key, queue)
			return err
		})
	case "nested in vain":
		undone := errors.New("undone")
		err = pgx.BeginFunc(ctx, tx, func(inner pgx.Tx) error {
			if _, err := inner.Exec(ctx, insert, t.Key+"!in vain", queue); err != nil {
				return err
			}
			return undone
		})
		if errors.Is(err, undone) {
			_, err = tx.Exec(ctx, insert, t.Key, queue)
		}
	default:
		_, err = tx.Exec(ctx, insert, t.Key, queue)
	}
	if err == nil && t.Hot > 0 {
		_, err = tx.Exec(ctx, `UPDATE hot SET n = n + 1 WHERE id = $1`, t.Hot)
	}
	return err
}

func (w *world) sendChild(ctx context.Context, tx pgx.Tx, c *sqlq.Client, in *sqlq.Incoming, ch child, key string) error {
	kind := kinds[ch.Kind]
	ch.Task.Key = key
	var options []sqlq.SendOption
	if ch.Delay > 0 {
		delay := time.Duration(ch.Delay) * time.Millisecond
		ch.Task.NotYet = time.Now().Add(delay - clockGrain)
		options = append(options, sqlq.Delay(delay))
	}
	if ch.Task.Header != "" {
		options = append(options, sqlq.WithHeader("model", ch.Task.Header))
	}
	m := kind.make(ch.Task)
	switch {
	case tx != nil && ch.Tx && kind.event:
		return c.PublishTx(ctx, tx, m, options...)
	case tx != nil && ch.Tx:
		return c.SendTx(ctx, tx, m, options...)
	case kind.event:
		return in.Publish(m, options...)
	default:
		return in.Send(m, options...)
	}
}

// sendAtOnce sends past the delivery. The message exists whatever becomes of the handler.
func (w *world) sendAtOnce(ctx context.Context, c *sqlq.Client, ch child, key string) {
	ch.Task.Key = key
	if err := c.Send(ctx, kinds[ch.Kind].make(ch.Task)); !errors.Is(err, sqlq.ErrInHandler) && !errors.Is(err, sqlq.ErrClosed) {
		w.problem("%s: Client.Send in a handler returned %v, want ErrInHandler", key, err)
	}
	b := w.enter(ch.Kind, ch.Task, nil, "")
	err := c.Send(ctx, kinds[ch.Kind].make(ch.Task), sqlq.Immediately())
	w.settleFate(b, err, "send at once")
}

// fail ends an attempt that is to fail.
func fail(ctx context.Context, tx pgx.Tx, in *sqlq.Incoming, t task) error {
	switch t.How {
	case byPanic:
		panic(errModel)
	case byRetryAfter:
		return sqlq.RetryAfter(time.Duration(in.Attempt)*time.Millisecond, errModel)
	case byUnrecoverable:
		return sqlq.Unrecoverable(errModel)
	case byLateFinal:
		if in.Attempt > 1 {
			return sqlq.Unrecoverable(errModel)
		}
	case bySQLError:
		_, err := tx.Exec(ctx, `SELECT 1 / 0`)
		return err
	case bySwallowing:
		_, _ = tx.Exec(ctx, `SELECT 1 / 0`)
		return nil
	case byConstraint:
		_, err := tx.Exec(ctx, `INSERT INTO refused (key) VALUES ($1), ($1)`, t.Key)
		return err
	case byMissingQueue:
		return in.Send(plainTask{task{Key: t.Key + "!in vain"}}, sqlq.To("nowhere"))
	}
	return fmt.Errorf("attempt %d: %w", in.Attempt, errModel)
}

// ending is what must become of a message on a queue.
type ending struct {
	fails    bool
	attempts int // handled with, or failed after
}

// foresee says what becomes of a task under a retry policy when nothing disturbs it.
func foresee(t task, p sqlq.RetryPolicy) ending {
	limit := (1 + max(p.Immediate, 0)) * (1 + len(p.Delays)) // the model's policies have no zero values
	switch {
	case t.How == byUnrecoverable, t.How == byUnknownType, t.How == byGarbledBody:
		return ending{fails: true, attempts: 1}
	case t.How == byLateFinal:
		return ending{fails: true, attempts: min(2, limit)}
	case t.Fail >= limit:
		return ending{fails: true, attempts: limit}
	}
	return ending{attempts: t.Fail + 1}
}

// clockGrain is by how much two readings of one clock may be taken in the wrong order: the database reads microseconds.
const clockGrain = time.Millisecond

// author makes up tasks.
type author struct {
	*rand.Rand
	refusals bool // messages whose settle the server refuses
}

func (a *author) one(of ...string) string { return of[a.IntN(len(of))] }

func (a *author) in(percent int) bool { return a.IntN(100) < percent }

// task makes up what a message of a kind does, children included, down to a depth.
func (a *author) task(kind string, depth int) task {
	k := kinds[kind]
	t := task{Via: a.one("", "row", "rows", "batch", "copy", "nested", "nested in vain")}
	switch kind {
	case "strange":
		return task{How: byUnknownType}
	case "garbled":
		return task{How: byGarbledBody}
	}
	if a.in(25) {
		t.Fail = 1 + a.IntN(4)
		if a.in(20) {
			t.Fail = 1000
		}
		ways := []string{byError, byError, byPanic, byRetryAfter, byUnrecoverable, byLateFinal}
		if slices.Equal(k.queues, k.inTx) { // handled in the transaction wherever it goes
			ways = append(ways, bySQLError, bySwallowing)
			if a.refusals || kind == "tx" { // a plain neighbour in the batch may be handled again
				ways = append(ways, byConstraint)
			}
		}
		if a.refusals {
			ways = append(ways, byMissingQueue)
		}
		t.How = a.one(ways...)
		if t.How == byUnrecoverable || t.How == byLateFinal {
			t.Fail = 1000
		}
	}
	if kind != "most" && a.in(6) {
		t.Back = 1 + a.IntN(2)
	}
	if a.in(8) {
		t.Slow = 20 + a.IntN(250)
	} else if a.in(20) {
		t.Slow = 1 + a.IntN(4)
	}
	if a.in(30) {
		t.Hot = 1 + a.IntN(hotRows)
	}
	switch n := a.IntN(100); {
	case n < 3:
		t.Size = 40_000 + a.IntN(60_000)
	case n < 10:
		t.Size = a.IntN(8_300)
	case n < 40:
		t.Size = a.IntN(200)
	}
	t.Pad = strings.Repeat("x", t.Size)
	if depth > 0 && a.in(25) {
		for range 1 + a.IntN(3) {
			t.Children = append(t.Children, a.child(depth-1))
		}
	}
	if a.in(3) {
		now := a.child(0)
		now.Kind, now.Delay, now.Task.Header = "plain", 0, ""
		now.Task.How = strings.NewReplacer(bySQLError, byError, bySwallowing, byError, byConstraint, byError).Replace(now.Task.How)
		t.Now = &now
	}
	return t
}

func (a *author) child(depth int) child {
	c := child{Kind: a.one("plain", "tx", "mixed", "mixedTx", "happened", "noticed", "most", "once", "onceTx"), Tx: a.in(30)}
	c.Task = a.task(c.Kind, depth)
	if a.in(15) {
		c.Delay = 1 + a.IntN(100)
	}
	if a.in(15) {
		c.Task.Header = a.one("a", "ä\"\\b", "")
	}
	return c
}

// keyOf reads the key of a stored message.
func keyOf(body []byte) string {
	var t struct{ Key string }
	if err := json.Unmarshal(body, &t); err != nil {
		return fmt.Sprintf("unreadable: %v", err)
	}
	return t.Key
}
