package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// notes collects what handlers saw.
type notes struct {
	mu  sync.Mutex
	all []string
}

func (n *notes) add(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, fmt.Sprintf(format, args...))
}

func (n *notes) take() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := n.all
	n.all = nil
	return all
}

// hop is a command that is sent on, the number of times that it says.
type hop struct {
	Left int
	Own  string // the correlation id that the handler gives what it sends
}

func (hop) MessageType() string { return "post.Hop" }

// Correlation and conversation ids follow along, from one handler to the next, by Send and Publish, Handle and HandleTx,
// at once and delayed, and through retries.
func TestCorrelationFollowsAlong(t *testing.T) {
	t.Parallel()
	type ids struct{ ID, Correlation, Conversation, Type string }
	for _, c := range []struct {
		name string
		inTx bool
		send []sqlq.SendOption // the first
		hop  []sqlq.SendOption // the handlers
	}{
		{"Handle", false, nil, nil},
		{"HandleTx", true, nil, nil},
		{"with a correlation id", false, []sqlq.SendOption{sqlq.WithCorrelationID("order 17 é")}, nil},
		{"with headers and delays", true, []sqlq.SendOption{sqlq.WithHeader("a", "b"), sqlq.WithCorrelationID("x")}, []sqlq.SendOption{sqlq.WithHeader("c", "d"), sqlq.Delay(time.Millisecond)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			client := open(t, pool, sqlq.Config{})
			var mu sync.Mutex
			var seen []ids
			handle := func(d *sqlq.Incoming, left int, own string) error {
				mu.Lock()
				defer mu.Unlock()
				if d.Attempt == 1 {
					return errors.New("once more")
				}
				seen = append(seen, ids{d.ID.String(), d.CorrelationID, d.ConversationID, d.Type})
				options := c.hop
				if own != "" {
					options = append(slices.Clone(options), sqlq.WithCorrelationID(own))
				}
				switch {
				case left > 0:
					return d.Send(hop{Left: left - 1}, options...)
				case left == 0:
					return d.Publish(posted{}, options...)
				}
				return nil
			}
			handlers := []sqlq.Handler{
				sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[hop]) error {
					return handle(d.Incoming, d.Message.Left, d.Message.Own)
				}),
				sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[posted]) error { return handle(d.Incoming, -1, "") }),
			}
			if c.inTx {
				handlers = []sqlq.Handler{
					sqlq.HandleTx(func(_ context.Context, _ pgx.Tx, d *sqlq.Delivery[hop]) error {
						return handle(d.Incoming, d.Message.Left, d.Message.Own)
					}),
					sqlq.HandleTx(func(_ context.Context, _ pgx.Tx, d *sqlq.Delivery[posted]) error { return handle(d.Incoming, -1, "") }),
				}
			}
			e := sqlq.Endpoint{Name: "post", Handlers: handlers, Retry: sqlq.RetryPolicy{Immediate: -1, Delays: []time.Duration{time.Millisecond}}}
			if err := client.Prepare(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			run(t, client, e)
			flow := func(first sqlq.Message, n int) []ids {
				t.Helper()
				mu.Lock()
				seen = nil
				mu.Unlock()
				if err := client.Send(t.Context(), first, c.send...); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the whole flow", func() (bool, string) {
					mu.Lock()
					defer mu.Unlock()
					return len(seen) == n, fmt.Sprint(seen)
				})
				return seen
			}
			got := flow(hop{Left: 2}, 4)
			correlation := got[0].ID
			if len(c.send) > 0 {
				correlation = got[0].Correlation
				if correlation == got[0].ID {
					t.Error("the sender's correlation id is gone")
				}
			}
			for i, g := range got {
				if g.Conversation != got[0].ID || g.Correlation != correlation {
					t.Errorf("hop %d of %v: want conversation %s and correlation %s", i, g, got[0].ID, correlation)
				}
				if i > 0 && slices.ContainsFunc(got[:i], func(o ids) bool { return o.ID == g.ID }) {
					t.Errorf("hop %d has the id of an earlier one", i)
				}
			}
			// A handler may say that from here on it is about something else; the conversation is the same.
			got = flow(hop{Left: 1, Own: "from here on"}, 3)
			for i, g := range got {
				if i > 0 && g.Correlation != "from here on" || g.Conversation != got[0].ID {
					t.Errorf("hop %d of %v", i, g)
				}
			}
		})
	}
}

// What a sender says of a message arrives with it, each time that it is handled.
func TestDeliveryHasWhatWasSent(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	client := open(t, pool, sqlq.Config{})
	headers := sqlq.Headers{"a": "", "B-c_d.9": `quo"te \ <&> ' é 漢 🚚` + "\b\f\n\r\t\x01\x1f\x7f\u2028\ufeff\U0010ffff", strings.Repeat("h", 200): strings.Repeat("v", 10_000)}
	for _, name := range strangeHeaders {
		headers[name] = name
	}
	var options []sqlq.SendOption
	for name, value := range headers {
		options = append(options, sqlq.WithHeader(name, value))
	}
	options = append(options, sqlq.WithID(fixedID), sqlq.WithHeader("a", "replaced"), sqlq.WithHeader("a", ""))
	var mu sync.Mutex
	attempts := 0
	e := sqlq.Endpoint{Name: "post", Retry: sqlq.RetryPolicy{Immediate: 1, Delays: []time.Duration{time.Millisecond}}, Handlers: []sqlq.Handler{
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error {
			mu.Lock()
			defer mu.Unlock()
			attempts++
			if d.Message != (letter{N: 7, Where: "é"}) || string(d.Body) != `{"N":7,"Where":"é"}` {
				t.Errorf("message %+v, body %s", d.Message, d.Body)
			}
			if d.ID != fixedID || d.Type != "post.Letter" || d.Endpoint != "post" {
				t.Errorf("id %v, type %s, endpoint %s", d.ID, d.Type, d.Endpoint)
			}
			if d.Attempt != attempts {
				t.Errorf("attempt %d is said to be %d", attempts, d.Attempt)
			}
			if age := time.Since(d.SentAt); age < 0 || age > time.Minute {
				t.Errorf("sent at %v", d.SentAt)
			}
			own := maps.Clone(d.Headers)
			maps.DeleteFunc(own, func(name, _ string) bool { return strings.HasPrefix(name, "sqlq-") })
			if !maps.Equal(own, headers) {
				t.Errorf("attempt %d has headers %q, want %q", attempts, own, headers)
			}
			if d.Attempt < 4 {
				return errors.New("once more")
			}
			return nil
		}),
	}}
	if err := client.Prepare(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	run(t, client, e)
	if err := client.Send(t.Context(), letter{N: 7, Where: "é"}, options...); err != nil {
		t.Fatal(err)
	}
	eventually(t, "four attempts", func() (bool, string) {
		mu.Lock()
		defer mu.Unlock()
		return attempts == 4, fmt.Sprint(attempts)
	})
	eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_post) + (SELECT count(*) FROM sqlq.delayed)`)
}

// Middleware is called from the outside in: the client's before the endpoint's, each in the order given, and once an
// attempt. Its context reaches the handler, its error decides, and its panic is an error.
func TestHandleMiddleware(t *testing.T) {
	t.Parallel()
	type key struct{}
	for _, inTx := range []bool{false, true} {
		t.Run(fmt.Sprint("in a transaction ", inTx), func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			var seen notes
			layer := func(name string) func(sqlq.HandleFunc) sqlq.HandleFunc {
				return func(next sqlq.HandleFunc) sqlq.HandleFunc {
					return func(ctx context.Context, d *sqlq.Incoming) error {
						path, _ := ctx.Value(key{}).(string)
						seen.add("%s>", name)
						err := next(context.WithValue(ctx, key{}, path+name), d)
						seen.add("<%s", name)
						return err
					}
				}
			}
			judge := func(next sqlq.HandleFunc) sqlq.HandleFunc {
				return func(ctx context.Context, d *sqlq.Incoming) error {
					switch d.Headers["judge"] {
					case "early":
						seen.add("early")
						return nil
					case "panic":
						panic("in middleware")
					case "forgive":
						return errors.Join(nil, ignore(next(ctx, d)))
					case "refuse":
						return errors.Join(next(ctx, d), errors.New("refused"))
					}
					return next(ctx, d)
				}
			}
			c := open(t, pool, sqlq.Config{HandleMiddleware: []func(sqlq.HandleFunc) sqlq.HandleFunc{layer("a"), layer("b")}})
			handle := func(ctx context.Context, d *sqlq.Delivery[letter]) error {
				seen.add("%v", ctx.Value(key{}))
				if d.Headers["judge"] == "forgive" {
					return errors.New("to be forgiven")
				}
				return nil
			}
			handler := sqlq.Handle(handle)
			if inTx {
				handler = sqlq.HandleTx(func(ctx context.Context, _ pgx.Tx, d *sqlq.Delivery[letter]) error { return handle(ctx, d) })
			}
			e := sqlq.Endpoint{Name: "post", Retry: noRetry, Middleware: []func(sqlq.HandleFunc) sqlq.HandleFunc{layer("c"), layer("d"), judge}, Handlers: []sqlq.Handler{handler}}
			if err := c.Prepare(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			run(t, c, e)
			for _, want := range []struct {
				judge, notes string
				failed       int
			}{
				{"", "a> b> c> d> abcd <d <c <b <a", 0},
				{"early", "a> b> c> d> early <d <c <b <a", 0},
				{"forgive", "a> b> c> d> abcd <d <c <b <a", 0},
				{"refuse", "a> b> c> d> abcd <d <c <b <a", 1},
				{"panic", "a> b> c> d>", 2},
			} {
				if err := c.Send(t.Context(), letter{}, sqlq.WithHeader("judge", want.judge)); err != nil {
					t.Fatal(err)
				}
				eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_post) + (SELECT count(*) FROM sqlq.leased)`)
				if got := strings.Join(seen.take(), " "); got != want.notes {
					t.Errorf("%s: %s, want %s", want.judge, got, want.notes)
				}
				if n := count(t, pool, `SELECT count(*) FROM sqlq.error`); n != want.failed {
					t.Errorf("%s: %d failed, want %d", want.judge, n, want.failed)
				}
			}
		})
	}
}

func ignore(error) error { return nil }

// Sending has its own middleware, around everything that is sent: by the client, in the caller's transaction, and by
// handlers, whose context it gets. It sees the encoded message, may change headers and body, and may refuse.
func TestSendMiddleware(t *testing.T) {
	t.Parallel()
	type key struct{}
	pool := newPool(t)
	var seen notes
	layer := func(name string) func(sqlq.SendFunc) sqlq.SendFunc {
		return func(next sqlq.SendFunc) sqlq.SendFunc {
			return func(ctx context.Context, m *sqlq.Outgoing) error {
				seen.add("%s>%v", name, ctx.Value(key{}))
				m.Headers["path"] += name // also where the sender gave no headers
				err := next(ctx, m)
				seen.add("<%s", name)
				return err
			}
		}
	}
	refused := errors.New("refused")
	judge := func(next sqlq.SendFunc) sqlq.SendFunc {
		return func(ctx context.Context, m *sqlq.Outgoing) error {
			if m.Type != m.Message.MessageType() || len(m.Body) == 0 || (m.Queue == "") != (m.Type == "post.Posted") || m.ID == (sqlq.ID{}) {
				t.Errorf("%+v", m)
			}
			switch m.Headers["judge"] {
			case "refuse":
				return refused
			case "swallow":
				return nil
			case "garble":
				m.Headers["no\x00header"] = ""
			case "blow up":
				m.Body = make([]byte, 2000)
			case "encrypt":
				m.Body = []byte(`{"N":17}`)
			}
			return next(ctx, m)
		}
	}
	c := open(t, pool, sqlq.Config{MaxBody: 1000, SendMiddleware: []func(sqlq.SendFunc) sqlq.SendFunc{layer("a"), layer("b"), judge}, Routes: map[string]string{"post.Letter": "post"},
		HandleMiddleware: []func(sqlq.HandleFunc) sqlq.HandleFunc{func(next sqlq.HandleFunc) sqlq.HandleFunc {
			return func(ctx context.Context, d *sqlq.Incoming) error {
				return next(context.WithValue(ctx, key{}, "handler"), d)
			}
		}}})
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	execSQL(t, pool, `INSERT INTO sqlq.subscription (type, queue) VALUES ('post.Posted', 'post')`)
	ctx := context.WithValue(t.Context(), key{}, "caller")
	sends := map[string]func(o ...sqlq.SendOption) error{
		"Send":     func(o ...sqlq.SendOption) error { return c.Send(ctx, letter{N: 1}, o...) },
		"SendMany": func(o ...sqlq.SendOption) error { return c.SendMany(ctx, []sqlq.Message{letter{N: 1}}, o...) },
		"Publish":  func(o ...sqlq.SendOption) error { return c.Publish(ctx, posted{N: 1}, o...) },
		"SendTx": func(o ...sqlq.SendOption) error {
			return inTx(t, pool, func(tx pgx.Tx) error { return c.SendTx(ctx, tx, letter{N: 1}, o...) })
		},
		"PublishTx": func(o ...sqlq.SendOption) error {
			return inTx(t, pool, func(tx pgx.Tx) error { return c.PublishTx(ctx, tx, posted{N: 1}, o...) })
		},
	}
	for name, send := range sends {
		for _, want := range []struct {
			judge  string
			err    error
			stored string // the body
		}{{"", nil, `{"N":1}`}, {"refuse", refused, ""}, {"swallow", nil, ""}, {"garble", sqlq.ErrInvalidName, ""}, {"blow up", sqlq.ErrBodyTooLarge, ""}, {"encrypt", nil, `{"N":17}`}} {
			execSQL(t, pool, `TRUNCATE sqlq.q_post`)
			var options []sqlq.SendOption
			path := "ab"
			if want.judge != "" {
				options = append(options, sqlq.WithHeader("judge", want.judge), sqlq.WithHeader("path", "x"))
				path = "xab"
			}
			if err := send(options...); !errors.Is(err, want.err) || err != nil && want.err == nil {
				t.Errorf("%s, %s: %v, want %v", name, want.judge, err, want.err)
			}
			if got := strings.Join(seen.take(), " "); got != "a>caller b>caller <b <a" {
				t.Errorf("%s, %s: %s", name, want.judge, got)
			}
			got := storedIn(t, pool, "post")
			if want.stored == "" && len(got) > 0 || want.stored != "" && (len(got) != 1 || got[0].Body != want.stored || !strings.Contains(*got[0].Headers, `"path": "`+path+`"`)) {
				t.Errorf("%s, %s: stored %v, want %s", name, want.judge, got, want.stored)
			}
		}
	}

	// From a handler.
	e := sqlq.Endpoint{Name: "relay", Retry: noRetry, Handlers: []sqlq.Handler{
		sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[hop]) error {
			return errors.Join(d.Send(letter{N: 2}), d.Publish(posted{N: 3}))
		}),
	}}
	execSQL(t, pool, `TRUNCATE sqlq.q_post`)
	if err := c.Prepare(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	run(t, c, e)
	execSQL(t, pool, `SELECT sqlq.send('relay', 'post.Hop', '{}')`)
	eventuallyCount(t, pool, 2, `SELECT count(*) FROM sqlq.q_post`)
	if got := strings.Join(seen.take(), " "); got != "a>handler b>handler <b <a a>handler b>handler <b <a" {
		t.Errorf("from a handler: %s", got)
	}
}
