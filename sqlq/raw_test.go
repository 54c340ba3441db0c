package sqlq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// rawsKept keeps the Raws that handlers get.
type rawsKept struct {
	mu  sync.Mutex
	all []sqlq.Raw
}

func (r *rawsKept) add(m sqlq.Raw) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m.Body = bytes.Clone(m.Body)
	r.all = append(r.all, m)
}

// await waits until so many have come.
func (r *rawsKept) await(t *testing.T, n int) []sqlq.Raw {
	t.Helper()
	var all []sqlq.Raw
	eventually(t, "raw messages", func() (bool, string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		all = r.all
		return len(all) >= n, fmt.Sprintf("%d of %d", len(all), n)
	})
	return all
}

// keep is a handler of what it keeps.
func (r *rawsKept) keep(_ context.Context, d *sqlq.Delivery[sqlq.Raw]) error {
	r.add(d.Message)
	return nil
}

// contents are bodies and content types that a Raw carries unchanged.
func contents() []sqlq.Raw {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	return []sqlq.Raw{
		{Body: []byte(`{"a": 1 }`)},
		{Body: []byte("\t null\n"), ContentType: "application/json"},
		{Body: []byte(`"é"`), ContentType: `application/JSON ; charset="utf-8"`},
		{Body: []byte(`[]`), ContentType: "application/cloudevents+json"},
		{Body: every, ContentType: "application/octet-stream"},
		{Body: nil, ContentType: "application/x-nothing"},
		{Body: []byte{}, ContentType: "text/plain; charset=iso-8859-1; x=\"ü\""},
		{Body: bytes.Repeat([]byte{0}, 100_000), ContentType: "application/vnd.post.letter.v2+protobuf"},
	}
}

// A Raw arrives with the bytes and the content type with which it was sent, by whatever it was sent, and past the Codecs.
func TestRawKeepsBytesAndContentType(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	greedy := codecOf("text/greedy")
	greedy.Encodes = func(any) bool { return true }
	c := open(t, pool, sqlq.Config{Codecs: []sqlq.Codec{greedy}, Routes: map[string]string{"post.Start": "post", "post.Kept": "post"}})
	want := contents()
	var got rawsKept
	run(t, c, sqlq.Endpoint{Name: "post", Handlers: []sqlq.Handler{
		sqlq.HandleRaw("post.Kept", got.keep),
		sqlq.HandleRawTx("post.Start", func(_ context.Context, _ pgx.Tx, d *sqlq.Delivery[sqlq.Raw]) error {
			buffer := make([]byte, 200_000)
			for _, m := range want {
				m.Type, m.Body = "post.Kept", buffer[:copy(buffer, m.Body)]
				if err := d.Send(m); err != nil {
					return err
				}
			}
			clear(buffer)
			return nil
		})}})
	for i := range want {
		want[i].Type = "post.Kept"
	}
	var all []sqlq.Message
	for i := range want {
		if err := c.Send(t.Context(), want[i]); err != nil {
			t.Fatal(err)
		}
		if err := inTx(t, pool, func(tx pgx.Tx) error { return c.SendTx(t.Context(), tx, &want[i]) }); err != nil {
			t.Fatal(err)
		}
		all = append(all, want[i])
	}
	if err := c.SendMany(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(t.Context(), sqlq.Raw{Type: "post.Start", Body: []byte(`{}`)}); err != nil {
		t.Fatal(err)
	}
	is, wants := map[string]int{}, map[string]int{}
	for _, m := range got.await(t, 4*len(want)) {
		is[fmt.Sprintf("%s %x", m.ContentType, m.Body)]++
	}
	for _, m := range want {
		if m.ContentType == "" {
			m.ContentType = "application/json"
		}
		wants[fmt.Sprintf("%s %x", m.ContentType, m.Body)] += 4
	}
	if !equalCounts(is, wants) {
		t.Errorf("got %.500v\nwant %.500v", is, wants)
	}
}

func equalCounts(a, b map[string]int) bool {
	for k, n := range a {
		if b[k] != n {
			return false
		}
	}
	return len(a) == len(b)
}

// What no receiver could read, or no table holds, is refused with what is wrong, and nothing is stored.
func TestRawRefused(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	c := open(t, pool, sqlq.Config{MaxBody: 100})
	body := []byte(`{}`)
	for _, tc := range []struct {
		name string
		m    sqlq.Message
		is   error
		says string
	}{
		{"nil", (*sqlq.Raw)(nil), nil, "the message is nil"},
		{"zero", sqlq.Raw{}, sqlq.ErrInvalidName, `message type ""`},
		{"no type", sqlq.Raw{Body: body}, sqlq.ErrInvalidName, `message type ""`},
		{"odd type", sqlq.Raw{Type: "no\ntype", Body: body}, sqlq.ErrInvalidName, `message type "no\ntype"`},
		{"long type", sqlq.Raw{Type: strings.Repeat("t", 201), Body: body}, sqlq.ErrInvalidName, "1 to 200"},
		{"empty body", sqlq.Raw{Type: "post.Raw"}, sqlq.ErrEncode, "as application/json: the body is empty"},
		{"no JSON", sqlq.Raw{Type: "post.Raw", Body: []byte(`{"a":}`)}, sqlq.ErrEncode, "as application/json: invalid character '}'"},
		{"more than JSON", sqlq.Raw{Type: "post.Raw", Body: []byte(`{} {}`), ContentType: "Application/JSON; v=1"}, sqlq.ErrEncode, "as Application/JSON; v=1: invalid character '{'"},
		{"JSON of a family", sqlq.Raw{Type: "post.Raw", Body: []byte("\xff"), ContentType: "application/x+json"}, sqlq.ErrEncode, "not UTF-8"},
		{"Latin-1", sqlq.Raw{Type: "post.Raw", Body: []byte("\"\xe4\""), ContentType: "application/json; charset=iso-8859-1"}, sqlq.ErrEncode, "not UTF-8"},
		{"no media type", sqlq.Raw{Type: "post.Raw", Body: body, ContentType: "json"}, sqlq.ErrEncode, `"json" is not a media type`},
		{"long content type", sqlq.Raw{Type: "post.Raw", Body: body, ContentType: "text/" + strings.Repeat("x", 200)}, sqlq.ErrEncode, "of 205 bytes"},
		{"NUL", sqlq.Raw{Type: "post.Raw", Body: body, ContentType: "text/plain; x=\"\x00\""}, sqlq.ErrEncode, "without NUL"},
		{"too large", sqlq.Raw{Type: "post.Raw", Body: make([]byte, 101), ContentType: "text/plain"}, sqlq.ErrBodyTooLarge, "101 bytes, the limit is 100"},
		{"no route", sqlq.Raw{Type: "post.Raw", Body: body}, sqlq.ErrNoRoute, "send post.Raw"},
	} {
		to := []sqlq.SendOption{sqlq.To("post")}
		if tc.is == sqlq.ErrNoRoute {
			to = nil
		}
		for way, send := range map[string]func() error{
			"Send":     func() error { return c.Send(t.Context(), tc.m, to...) },
			"SendMany": func() error { return c.SendMany(t.Context(), []sqlq.Message{tc.m}, to...) },
			"SendTx": func() error {
				return inTx(t, pool, func(tx pgx.Tx) error { return c.SendTx(t.Context(), tx, tc.m, to...) })
			},
			"Publish": func() error {
				if tc.is == sqlq.ErrNoRoute {
					return fmt.Errorf("send post.Raw: %w", tc.is)
				}
				return c.Publish(t.Context(), tc.m)
			},
		} {
			err := send()
			if err == nil || tc.is != nil && !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.says) || strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("%s, %s: %v", tc.name, way, err)
			}
		}
	}
	if err := c.Publish(t.Context(), sqlq.Raw{Type: "post.Raw", Body: body}, sqlq.To("post")); !errors.Is(err, sqlq.ErrIsEvent) {
		t.Errorf("Publish To one queue: %v", err)
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.q_post`); n != 0 {
		t.Errorf("%d messages are stored", n)
	}
}

// Raws and messages with a Go type of one name are the same messages on the wire, events and commands.
func TestRawAndTypedAreTheSame(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{})
	var raws rawsKept
	typed := make(chan string, 10)
	endpoints := []sqlq.Endpoint{
		{Name: "raw", Subscribe: []string{"post.Ordinal7"}, Handlers: []sqlq.Handler{sqlq.HandleRaw("post.Ordinal7", raws.keep), sqlq.HandleRaw("post.Number", raws.keep)}},
		{Name: "typed", Handlers: []sqlq.Handler{
			sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error {
				typed <- fmt.Sprint(d.Message)
				return nil
			}),
			sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[seventh]) error {
				typed <- fmt.Sprint(d.Message)
				return nil
			})}}}
	run(t, c, endpoints...)
	if err := c.Prepare(t.Context(), endpoints...); err != nil {
		t.Fatal(err)
	}
	publish := func(m sqlq.Message) {
		if err := c.Publish(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	publish(seventh{1})
	publish(sqlq.Raw{Type: "post.Ordinal7", Body: []byte(`{"N": 2}`)})
	if err := inTx(t, pool, func(tx pgx.Tx) error {
		return c.PublishTx(t.Context(), tx, sqlq.Raw{Type: "post.Ordinal7", Body: []byte(`{"N":3}`)})
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(t.Context(), number{4}); err != nil { // the route is the raw handler's
		t.Fatal(err)
	}
	bodies := map[string]int{}
	for _, m := range raws.await(t, 4) {
		bodies[string(m.Body)]++
	}
	if want := map[string]int{`{"N":1}`: 1, `{"N": 2}`: 1, `{"N":3}`: 1, `{"N":4}`: 1}; !equalCounts(bodies, want) {
		t.Errorf("raw: %v", bodies)
	}
	seen := map[string]int{}
	for range 3 {
		seen[<-typed]++
	}
	if want := map[string]int{`{1}`: 1, `{2}`: 1, `{3}`: 1}; !equalCounts(seen, want) {
		t.Errorf("typed: %v", seen)
	}
}

// seventh is an event whose type an ordinal has too.
type seventh struct{ N int }

func (seventh) MessageType() string { return "post.Ordinal7" }
func (seventh) IsEvent()            {}

// A raw handler is not given bytes that have to be read in a way which the release does not know.
func TestRawWithUnknownContentHeader(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{})
	var got rawsKept
	run(t, c, sqlq.Endpoint{Name: "post", Otherwise: sqlq.HandleRaw("", got.keep)})
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.queue`)
	execSQL(t, pool, `INSERT INTO sqlq.q_post (id, type, headers, body) VALUES (sqlq.uuid_v7(), 'post.Zipped', '{"sqlq-content-encoding":"gzip"}', 'x'),
		(sqlq.uuid_v7(), 'post.Odd', '{"sqlq-content-type":"no media type"}', 'x')`)
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.error WHERE type = 'post.Zipped' AND message LIKE '%sqlq-content-encoding%'`)
	if all := got.await(t, 1); all[0].Type != "post.Odd" || all[0].ContentType != "no media type" {
		t.Errorf("the handler got %+v", all)
	}
}
