package sqlq_test

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
)

// sender sends n messages, about, in all the ways there are.
func (w *world) sender(actor uint64, n int) {
	ctx := context.Background()
	pool := w.pool("model sender")
	defer pool.Close()
	c, err := sqlq.Open(ctx, pool, sqlq.Config{Routes: modelRoutes, Logger: slog.New(slog.NewTextHandler(w.log, nil)).With("sender", actor)})
	if err != nil {
		if w.faults {
			return
		}
		w.t.Error(err)
		return
	}
	s := &sender{world: w, author: author{Rand: w.rng(actor), refusals: w.refusals}, name: fmt.Sprint("s", actor), pool: pool, client: c}
	for s.n < n {
		switch x := s.IntN(100); {
		case x < 40:
			s.alone(ctx)
		case x < 55:
			s.many(ctx)
		default:
			s.inTransaction(ctx)
		}
		if s.in(50) {
			pause(ctx, s.Rand, 25*time.Millisecond)
		}
	}
}

type sender struct {
	*world
	author
	name   string
	n      int
	pool   *pgxpool.Pool
	client *sqlq.Client
}

// draft is a message about to be sent.
type draft struct {
	kind    string
	task    task
	life    lifetime
	options []sqlq.SendOption
}

// draft makes up a message. With plain it has no options.
func (s *sender) draft(kind string) draft {
	d := draft{kind: kind, task: s.author.task(kind, 2)}
	d.task.Key = fmt.Sprintf("%s.%d", s.name, s.n)
	s.n++
	s.options(&d)
	return d
}

// options gives a message a delay, a time to live, a header, an id, or none of them.
func (s *sender) options(d *draft) {
	delay, ttl := time.Duration(0), time.Duration(0)
	switch n := s.IntN(100); {
	case n < 10:
		delay = time.Duration(1+s.IntN(300)) * time.Millisecond
	case n < 12:
		delay, d.life = time.Hour, waits
	case n < 14:
		delay, ttl, d.life = 300*time.Millisecond, 300*time.Millisecond+time.Microsecond, diesWaiting // less is refused
	case n < 17:
		ttl, d.life = time.Duration(1+s.IntN(60))*time.Millisecond, mayExpire
	case n < 20:
		ttl = time.Hour
	}
	if d.life == mayExpire || d.life == diesWaiting {
		// What a message does that may or may not be handled would have to be guessed.
		d.task.Fail, d.task.How, d.task.Children, d.task.Now, d.task.Hot = 0, "", nil, nil, 0
		if d.kind == "strange" || d.kind == "garbled" {
			d.kind = "plain"
		}
	}
	if delay > 0 {
		d.task.NotYet = time.Now().Add(delay - clockGrain)
		if d.life != diesWaiting && s.in(30) {
			d.options = append(d.options, sqlq.At(time.Now().Add(delay)))
		} else {
			d.options = append(d.options, sqlq.Delay(delay))
		}
	}
	if ttl > 0 {
		d.options = append(d.options, sqlq.ExpiresIn(ttl))
	}
	if s.in(20) {
		d.task.Header = s.one("a", "a b", `"quoted" \ and ünicode`)
		d.options = append(d.options, sqlq.WithHeader("model", d.task.Header))
	}
	if s.in(20) {
		id := sqlq.NewID()
		d.task.ID = id.String()
		d.options = append(d.options, sqlq.WithID(id))
	}
}

func (s *sender) kind() string {
	if s.in(4) {
		return s.one("strange", "garbled")
	}
	return s.one("plain", "plain", "tx", "tx", "mixed", "mixedTx", "happened", "noticed", "most", "once", "onceTx")
}

func (d draft) message() sqlq.Message { return kinds[d.kind].make(d.task) }

// alone sends or publishes one message.
func (s *sender) alone(ctx context.Context) {
	d := s.draft(s.kind())
	if kinds[d.kind].queues[0] == "once" && d.life == ordinary && s.in(60) {
		s.twice(ctx, d)
		return
	}
	b := s.enter(d.kind, d.task, nil, d.life)
	if kinds[d.kind].event {
		s.settleFate(b, s.client.Publish(ctx, d.message(), d.options...), "publish")
	} else {
		s.settleFate(b, s.client.Send(ctx, d.message(), d.options...), "send")
	}
}

// many sends several commands at once. They share their options.
func (s *sender) many(ctx context.Context) {
	var ms []sqlq.Message
	var entered []*line
	shared := draft{kind: "plain"}
	for s.options(&shared); shared.task.ID != ""; s.options(&shared) {
		shared = draft{kind: "plain"}
	}
	for range 1 + s.IntN(40) {
		d := draft{kind: s.kind()}
		for kinds[d.kind].event {
			d.kind = s.kind()
		}
		if shared.life == mayExpire || shared.life == diesWaiting {
			d.kind, d.task = "plain", task{}
		} else {
			d.task = s.task(d.kind, 1)
		}
		d.task.Header, d.task.NotYet = shared.task.Header, shared.task.NotYet
		d.task.Key = fmt.Sprintf("%s.%d", s.name, s.n)
		s.n++
		entered = append(entered, s.enter(d.kind, d.task, nil, shared.life)...)
		ms = append(ms, d.message())
	}
	s.settleFate(entered, s.client.SendMany(ctx, ms, shared.options...), "send many")
}

// inTransaction sends in a transaction that is held open a while and then commits or rolls back.
func (s *sender) inTransaction(ctx context.Context) {
	var entered []*line
	fate, err := rolledBack, error(nil)
	defer func() {
		if err != nil && !s.mayFail(err) {
			s.t.Errorf("send in a transaction: %v", err)
		}
		s.setFate(entered, fate)
	}()
	tx, err := s.pool.Begin(ctx)
	if err != nil {
		return
	}
	defer tx.Rollback(ctx)
	for range 1 + s.IntN(5) {
		d := s.draft(s.kind())
		event, bare := kinds[d.kind].event, d.options == nil
		entered = append(entered, s.enter(d.kind, d.task, nil, d.life)...)
		switch m := d.message(); {
		case bare && event && s.in(30):
			_, err = tx.Exec(ctx, `SELECT sqlq.publish($1, $2)`, m.MessageType(), m)
		case bare && s.in(30) && !event:
			_, err = tx.Exec(ctx, `SELECT sqlq.send($1, $2, $3)`, kinds[d.kind].queues[0], m.MessageType(), m)
		case event:
			err = s.client.PublishTx(ctx, tx, m, d.options...)
		default:
			err = s.client.SendTx(ctx, tx, m, d.options...)
		}
		if err != nil {
			return
		}
		if s.in(30) {
			pause(ctx, s.Rand, 20*time.Millisecond)
		}
	}
	if s.in(30) {
		return
	}
	if err = tx.Commit(ctx); err != nil {
		fate = unknown
		return
	}
	fate = committed
}
