package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// Otherwise gets what no other handler is for, commands and events, and that only; as Handle, in the receive transaction, and at most
// once. Nothing waits for another process to know the type.
func TestOtherwise(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"Handle", "HandleTx", "at most once"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			execSQL(t, pool, `CREATE TABLE kept (type text)`)
			c := open(t, pool, sqlq.Config{})
			var letters, raws, others rawsKept
			e := sqlq.Endpoint{Name: "post", AtMostOnce: way == "at most once", Subscribe: []string{"post.Ordinal7", "post.Seen", "post.Seen"}, Handlers: []sqlq.Handler{
				sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error {
					letters.add(sqlq.Raw{Type: d.Type})
					return nil
				}),
				sqlq.HandleRaw("post.Seen", raws.keep)}, Otherwise: sqlq.HandleRaw("", others.keep)}
			if way == "HandleTx" {
				e.Otherwise = sqlq.HandleRawTx("", func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[sqlq.Raw]) error {
					others.add(d.Message)
					_, err := tx.Exec(ctx, `INSERT INTO kept VALUES ($1)`, d.Message.Type)
					return err
				})
			}
			if err := c.Prepare(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			run(t, c, e)
			for i := range 20 {
				execSQL(t, pool, `SELECT sqlq.send('post', 'post.Other' || $1::int, '{}')`, i)
			}
			for _, m := range []sqlq.Message{seventh{1}, sqlq.Raw{Type: "post.Seen", Body: []byte(`1`)}, sqlq.Raw{Type: "post.Unseen", Body: []byte(`1`)}} {
				if err := c.Publish(t.Context(), m); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.Send(t.Context(), letter{}); err != nil {
				t.Fatal(err)
			}
			if all := others.await(t, 21); len(all) != 21 {
				t.Errorf("%d others: %v", len(all), all)
			}
			letters.await(t, 1)
			if all := raws.await(t, 1); all[0].Type != "post.Seen" {
				t.Errorf("raw: %v", all)
			}
			eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_post) + (SELECT count(*) FROM sqlq.error) + (SELECT count(*) FROM sqlq.delayed)`)
			if n := count(t, pool, `SELECT count(DISTINCT type) FROM kept`); way == "HandleTx" && n != 21 {
				t.Errorf("its transaction kept %d", n)
			}
		})
	}
}

// Of the types that Otherwise handles, one whose messages all fail is slowed down and holds up no other.
func TestOtherwisePoisonHoldsUpNoOtherType(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	const poison, good = 500, 100
	execSQL(t, pool, `SELECT sqlq.send('post', 'post.Bad', '{}') FROM generate_series(1, $1::int)`, poison)
	execSQL(t, pool, `SELECT sqlq.send('post', 'post.Good' || n % 10, '{}') FROM generate_series(1, $1::int) n`, good)
	var mended atomic.Bool
	var failed, cured, handled atomic.Int32
	began := time.Now()
	run(t, open(t, pool, sqlq.Config{}), sqlq.Endpoint{Name: "post", Concurrency: 4, Retry: noRetry, Otherwise: sqlq.HandleRaw("", func(_ context.Context, d *sqlq.Delivery[sqlq.Raw]) error {
		switch {
		case d.Message.Type != "post.Bad":
			handled.Add(1)
		case mended.Load():
			cured.Add(1)
		default:
			failed.Add(1)
			return errors.New("broken")
		}
		return nil
	})})
	eventually(t, "the others", func() (bool, string) {
		return handled.Load() == good, fmt.Sprint(handled.Load(), " handled, ", failed.Load(), " failed")
	})
	if n, most := failed.Load(), 150+10*int32(time.Since(began).Seconds()); n > most {
		t.Errorf("%d failed meanwhile, want %d at most", n, most)
	}
	mended.Store(true)
	eventually(t, "the cured ones", func() (bool, string) {
		return cured.Load()+failed.Load() == poison, fmt.Sprint(cured.Load(), " cured, ", failed.Load(), " failed")
	})
}

// What does not fit together in an endpoint's raw handlers is refused before anything runs, and names the mistake.
func TestRawEndpointsRefused(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Routed": "office"}})
	raw := func(messageType string) sqlq.Handler {
		return sqlq.HandleRaw(messageType, func(context.Context, *sqlq.Delivery[sqlq.Raw]) error { return nil })
	}
	rawTx := sqlq.HandleRawTx("", func(context.Context, pgx.Tx, *sqlq.Delivery[sqlq.Raw]) error { return nil })
	letters := sqlq.Handle(func(context.Context, *sqlq.Delivery[letter]) error { return nil })
	for _, tc := range []struct {
		says string
		e    sqlq.Endpoint
	}{
		{"or set Otherwise", sqlq.Endpoint{}},
		{"without a message type", sqlq.Endpoint{Handlers: []sqlq.Handler{raw("")}}},
		{`message type "no type"`, sqlq.Endpoint{Handlers: []sqlq.Handler{raw("no type")}}},
		{`two handlers for message type "post.Letter"`, sqlq.Endpoint{Handlers: []sqlq.Handler{letters, raw("post.Letter")}}},
		{`Otherwise is a handler for message type "post.A"`, sqlq.Endpoint{Otherwise: raw("post.A")}},
		{`Otherwise is a handler for message type "post.Letter"`, sqlq.Endpoint{Otherwise: letters}},
		{"made by HandleRawTx", sqlq.Endpoint{AtMostOnce: true, Otherwise: rawTx}},
		{`"post.A", but nothing handles it`, sqlq.Endpoint{Handlers: []sqlq.Handler{letters}, Subscribe: []string{"post.A"}}},
		{`message type "a b"`, sqlq.Endpoint{Otherwise: raw(""), Subscribe: []string{"a b"}}},
		{`"post.Letter", whose handler is for a command`, sqlq.Endpoint{Handlers: []sqlq.Handler{letters}, Subscribe: []string{"post.Letter"}}},
		{`"post.Routed" is routed to queue "office"`, sqlq.Endpoint{Handlers: []sqlq.Handler{raw("post.Routed")}, Subscribe: []string{"post.Routed"}}},
		{`"post.Routed", which is routed to queue "office"`, sqlq.Endpoint{Otherwise: raw(""), Subscribe: []string{"post.Routed"}}},
	} {
		tc.e.Name = "post"
		if err := c.Run(t.Context(), tc.e); !errors.Is(err, sqlq.ErrInvalidEndpoint) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("want %s: %v", tc.says, err)
		}
	}
	audit, bridge := raw("post.A"), raw("post.A")
	if err := c.Prepare(t.Context(), sqlq.Endpoint{Name: "audit", Handlers: []sqlq.Handler{audit}}, sqlq.Endpoint{Name: "bridge", Handlers: []sqlq.Handler{bridge}}); !errors.Is(err, sqlq.ErrInvalidEndpoint) {
		t.Errorf("two receivers of a command: %v", err)
	}
	events := []string{"post.A"}
	if err := c.Prepare(t.Context(), sqlq.Endpoint{Name: "audit", Handlers: []sqlq.Handler{audit}, Subscribe: events}, sqlq.Endpoint{Name: "bridge", Handlers: []sqlq.Handler{bridge}, Subscribe: events}); err != nil {
		t.Errorf("two subscribers: %v", err)
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.subscription WHERE type = 'post.A'`); n != 2 {
		t.Errorf("%d subscriptions", n)
	}
	for _, make := range []func(){
		func() { sqlq.Handle(func(context.Context, *sqlq.Delivery[sqlq.Raw]) error { return nil }) },
		func() { sqlq.HandleTx(func(context.Context, pgx.Tx, *sqlq.Delivery[*sqlq.Raw]) error { return nil }) },
	} {
		func() {
			defer func() {
				if v := fmt.Sprint(recover()); !strings.Contains(v, "HandleRaw") {
					t.Errorf("it panicked with %s", v)
				}
			}()
			make()
		}()
	}
}

// However many types come to Otherwise, an instance remembers a bounded number of them, and each goes to the handler.
func TestOtherwiseManyTypes(t *testing.T) {
	t.Parallel()
	const types, at = 3_000, 8
	handler := sqlq.HandleRaw("", func(context.Context, *sqlq.Delivery[sqlq.Raw]) error { return nil })
	e := sqlq.Endpoint{Name: "post", Otherwise: handler}
	lookup, kept := sqlq.Handlings(&e)
	var wait sync.WaitGroup
	for g := range at {
		wait.Go(func() {
			for i := range types {
				if !lookup(fmt.Sprint("post.Type", (i+g)%types)) {
					t.Error("no handler")
				}
			}
		})
	}
	wait.Wait()
	if n := kept(); n != 1_000 {
		t.Errorf("%d types are kept", n)
	}
}
