package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// What a handler or middleware makes of an Incoming's fields ends with its attempt: the next one, at once or delayed, has the
// message as it was sent, and so has the error table.
func TestAttemptsHaveWhatWasSent(t *testing.T) {
	t.Parallel()
	for _, inTx := range []bool{false, true} {
		for _, sent := range []sqlq.Headers{nil, {"tenant": "north"}} {
			t.Run(fmt.Sprint("in a transaction ", inTx, ", headers ", sent), func(t *testing.T) {
				t.Parallel()
				pool := newPool(t)
				client := open(t, pool, sqlq.Config{})
				var attempts atomic.Int32
				spoil := func(next sqlq.HandleFunc) sqlq.HandleFunc {
					return func(ctx context.Context, d *sqlq.Incoming) error {
						attempts.Add(1)
						if d.Headers == nil || d.Headers["tenant"] != sent["tenant"] || d.Headers["spoilt"] != "" || string(d.Body) != `{"N":7}` ||
							d.ID != fixedID || d.Type != "post.Letter" || d.CorrelationID != fixedID.String() || d.SentAt.IsZero() {
							t.Errorf("attempt %d has headers %v, body %s, id %v, type %q, correlation id %q", d.Attempt, d.Headers, d.Body, d.ID, d.Type, d.CorrelationID)
						}
						err := next(ctx, d)
						d.Headers["spoilt"], d.Headers["sqlq-replays"] = "yes", "17"
						delete(d.Headers, "tenant")
						d.Body, d.ID, d.Type, d.CorrelationID, d.SentAt = []byte("spoilt"), sqlq.NewID(), "spoilt", "spoilt", time.Time{}
						return err
					}
				}
				e := sqlq.Endpoint{Name: "post", Middleware: []func(sqlq.HandleFunc) sqlq.HandleFunc{spoil},
					Retry:    sqlq.RetryPolicy{Immediate: 1, Delays: []time.Duration{time.Millisecond}},
					Handlers: []sqlq.Handler{sqlq.Handle(func(context.Context, *sqlq.Delivery[letter]) error { return errors.New("broken") })}}
				if inTx {
					e.Handlers = []sqlq.Handler{sqlq.HandleTx(func(context.Context, pgx.Tx, *sqlq.Delivery[letter]) error { return errors.New("broken") })}
				}
				if err := client.Prepare(t.Context(), e); err != nil {
					t.Fatal(err)
				}
				options := []sqlq.SendOption{sqlq.WithID(fixedID)}
				for name, value := range sent {
					options = append(options, sqlq.WithHeader(name, value))
				}
				if err := client.Send(t.Context(), letter{N: 7}, append(options, sqlq.To("post"))...); err != nil {
					t.Fatal(err)
				}
				run(t, client, e)
				eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.error`)
				f := failedRows(t, pool)[0]
				if f.ID != fixedID.String() || f.Type != "post.Letter" || f.Replays != 0 || attempts.Load() != 4 || (f.Headers == nil) != (sent == nil) ||
					f.Headers != nil && *f.Headers != `{"tenant":"north"}` {
					t.Errorf("after %d attempts the error table has %+v", attempts.Load(), f)
				}
			})
		}
	}
}

// A message whose type the endpoint does not know waits, without an attempt, for a process that does, such as the next version
// in a rolling deployment; only after Endpoint.UnknownWait it fails.
func TestUnknownTypeWaits(t *testing.T) {
	t.Parallel()
	for _, once := range []bool{false, true} {
		t.Run(fmt.Sprint("at most once ", once), func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			const n = 20
			var handled atomic.Int32
			older := sqlq.Endpoint{Name: "post", AtMostOnce: once, Handlers: []sqlq.Handler{sqlq.Handle(func(context.Context, *sqlq.Delivery[hop]) error { return nil })}}
			newer := older
			newer.Handlers = append(newer.Handlers, sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error {
				if d.Attempt != 1 || d.Headers["tenant"] != "north" {
					t.Errorf("attempt %d, headers %v", d.Attempt, d.Headers)
				}
				handled.Add(1)
				return nil
			}))
			old, client := open(t, pool, sqlq.Config{}), open(t, pool, sqlq.Config{Routes: map[string]string{"post.Letter": "post"}})
			if err := client.Prepare(t.Context(), newer); err != nil {
				t.Fatal(err)
			}
			stop := run(t, old, older)
			for i := range n {
				if err := client.Send(t.Context(), letter{N: i}, sqlq.WithHeader("tenant", "north")); err != nil {
					t.Fatal(err)
				}
			}
			eventuallyCount(t, pool, n, `SELECT count(*) FROM sqlq.delayed WHERE attempt = 0 AND error LIKE '%no handler for message type "post.Letter"%waits%'`)
			run(t, client, newer)
			stop()
			eventually(t, "all of them handled", func() (bool, string) { return handled.Load() == n, fmt.Sprint(handled.Load()) })
			eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_post) + (SELECT count(*) FROM sqlq.delayed) + (SELECT count(*) FROM sqlq.error)`)
		})
	}
}

// A type that nobody comes to know fails in the end, with the headers that were sent.
func TestUnknownTypeFailsInTheEnd(t *testing.T) {
	t.Parallel()
	for _, once := range []bool{false, true} {
		t.Run(fmt.Sprint("at most once ", once), func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			client := open(t, pool, sqlq.Config{})
			execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
			began := time.Now()
			run(t, client, sqlq.Endpoint{Name: "post", AtMostOnce: once, UnknownWait: 1500 * time.Millisecond, Handlers: []sqlq.Handler{
				sqlq.Handle(func(context.Context, *sqlq.Delivery[hop]) error { return nil })}})
			execSQL(t, pool, `SELECT sqlq.send('post', 'post.Letter', '{}', '{"tenant":"north"}'), sqlq.send('post', 'post.Letter', '{}')`)
			eventuallyCount(t, pool, 2, `SELECT count(*) FROM sqlq.error WHERE attempts = 1`)
			if took := time.Since(began); took < 1500*time.Millisecond {
				t.Errorf("failed after %v", took)
			}
			for _, f := range failedRows(t, pool) {
				if !strings.Contains(f.Message, sqlq.ErrUnknownType.Error()) || f.Headers != nil && *f.Headers != `{"tenant":"north"}` {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}

// An error of any length is one line of the log of a length that can be read, and stays itself.
func TestLoggedErrorsAreClipped(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	var log logged
	broken := errors.New("broken")
	var same atomic.Bool
	handler := slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if err, is := a.Value.Any().(error); is && errors.Is(err, broken) {
			same.Store(true)
		}
		return a
	}})
	client := open(t, pool, sqlq.Config{Logger: slog.New(handler)})
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	run(t, client, sqlq.Endpoint{Name: "post", Retry: noRetry, Concurrency: 1, Handlers: []sqlq.Handler{
		sqlq.Handle(func(context.Context, *sqlq.Delivery[letter]) error {
			return fmt.Errorf("%w: %s", broken, strings.Repeat("x", 20<<20))
		})}})
	execSQL(t, pool, `SELECT sqlq.send('post', 'post.Letter', '{}') FROM generate_series(1, 11)`) // the breaker has its say too
	eventuallyCount(t, pool, 11, `SELECT count(*) FROM sqlq.error`)
	eventually(t, "the line of the last", func() (bool, string) { return strings.Count(log.all(), "message failed") == 11, "" })
	for line := range strings.Lines(log.all()) {
		if len(line) > 10_000 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
	if !same.Load() {
		t.Error("the error that is logged is not the handler's")
	}
}
