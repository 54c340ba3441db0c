package ops_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/ops"
)

func TestSend(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	var bodies []json.RawMessage
	for i := range 1200 { // more than a round trip carries
		bodies = append(bodies, fmt.Appendf(nil, `{"n": %d}`, i))
	}
	ids, err := d.Send(t.Context(), "sales", ops.Outgoing{Type: "sales.PlaceOrder", Headers: map[string]string{"tenant": "north \"n\""}}, bodies...)
	if err != nil || len(ids) != len(bodies) {
		t.Fatalf("sent %d, err %v", len(ids), err)
	}
	sent, err := d.Ready.List(t.Context(), "sales", ops.Filter{Limit: 2000}, ops.Looking{})
	if err != nil || len(sent) != len(bodies) {
		t.Fatalf("peeked %d, err %v", len(sent), err)
	}
	for i, m := range sent {
		if m.ID != ids[i] || string(m.Body) != string(bodies[i]) || m.Type != "sales.PlaceOrder" || string(m.Headers) != `{"tenant":"north \"n\""}` {
			t.Fatalf("message %d: %+v, want id %s, body %s", i, m, ids[i], bodies[i])
		}
	}
	// Delayed, with an id of one's own.
	const id = "0198c0de-0000-7000-8000-000000000001"
	ids, err = d.Send(t.Context(), "sales", ops.Outgoing{Type: "T", Delay: 90 * time.Minute, ID: id}, []byte(`[1]`))
	if err != nil || len(ids) != 1 || ids[0] != id {
		t.Fatalf("delayed: ids %v, err %v", ids, err)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.delayed WHERE id = $1 AND queue = 'sales' AND headers IS NULL
		AND due_at BETWEEN now() + interval '89 minutes' AND now() + interval '91 minutes'`, id); n != 1 {
		t.Error("the delayed message is not there")
	}
	if ids, err := d.Send(t.Context(), "sales", ops.Outgoing{Type: "T"}); err != nil || len(ids) != 0 {
		t.Errorf("no bodies: ids %v, err %v", ids, err)
	}
}

func TestSendRefuses(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	good := json.RawMessage(`{}`)
	refused := func(what string, m ops.Outgoing, wantHint bool, bodies ...json.RawMessage) error {
		t.Helper()
		ids, err := d.Send(t.Context(), "sales", m, bodies...)
		var pg *pgconn.PgError
		if err == nil || ids != nil || errors.As(err, &pg) != wantHint || wantHint && pg.Hint == "" {
			t.Errorf("%s: ids %v, err %v", what, ids, err)
		}
		return err
	}
	refused("no type", ops.Outgoing{}, true, good)
	refused("type", ops.Outgoing{Type: "no spaces"}, true, good)
	refused("header name", ops.Outgoing{Type: "T", Headers: map[string]string{"sqlq-replays": "1"}}, true, good)
	refused("delay", ops.Outgoing{Type: "T", Delay: -time.Second}, true, good)
	refused("delay of two centuries", ops.Outgoing{Type: "T", Delay: 200 * 365 * 24 * time.Hour}, true, good)
	if err := refused("past", ops.Outgoing{Type: "T", At: time.Now().Add(-2 * time.Minute)}, false, good); !errors.Is(err, sqlq.ErrInvalidTime) {
		t.Errorf("past: %v, want what package sqlq says", err)
	}
	refused("expired before it is ready", ops.Outgoing{Type: "T", Delay: time.Hour, TTL: time.Minute}, true, good)
	refused("expired before its time", ops.Outgoing{Type: "T", At: time.Now().Add(time.Hour), TTL: time.Minute}, true, good)
	refused("one id for two", ops.Outgoing{Type: "T", ID: "0198c0de-0000-7000-8000-000000000001"}, false, good, good)
	refused("id", ops.Outgoing{Type: "T", ID: "17"}, false, good)
	var body *ops.BodyError
	if err := refused("body", ops.Outgoing{Type: "T"}, false, good, []byte(`{"a":}`)); !errors.As(err, &body) || body.Number != 2 {
		t.Errorf("body: err %v", err)
	}
	refused("not UTF-8", ops.Outgoing{Type: "T"}, false, good, []byte("\"\xff\""))
	refused("too large", ops.Outgoing{Type: "T"}, false, good, []byte(`"`+strings.Repeat("x", ops.MaxBody)+`"`))
	if n := d.number(`SELECT count(*) FROM sqlq.q_sales`); n != 0 {
		t.Errorf("%d messages were sent", n)
	}
}

func TestPublish(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("audit", "billing")
	m := ops.Outgoing{Type: "sales.OrderPlaced", Headers: map[string]string{"tenant": "north"}}
	if events, queues, err := d.Publish(t.Context(), m, []byte(`{}`)); !errors.Is(err, ops.ErrNoSubscriber) || events != nil || queues != nil {
		t.Errorf("nobody is subscribed: %v, %v, err %v", events, queues, err)
	}
	for _, queue := range []string{"billing", "audit"} {
		if added, err := d.Routes.Subscribe(t.Context(), m.Type, queue); !added || err != nil {
			t.Fatal(added, err)
		}
	}
	var bodies []json.RawMessage
	for i := range 1200 { // more than a round trip carries
		bodies = append(bodies, fmt.Appendf(nil, `{"n": %d}`, i))
	}
	events, queues, err := d.Publish(t.Context(), m, bodies...)
	if err != nil || len(events) != len(bodies) || fmt.Sprint(queues) != "[audit billing]" {
		t.Fatalf("published %d to %v, err %v", len(events), queues, err)
	}
	ids := make([]string, len(events))
	for i, e := range events {
		if ids[i] = e.ID; e.Copies != 2 {
			t.Errorf("event %d has %d copies, want 2", i, e.Copies)
		}
	}
	for _, queue := range queues {
		if n := d.number(fmt.Sprintf(`SELECT count(*) FROM sqlq.q_%s q JOIN unnest($1::uuid[]) WITH ORDINALITY e (id, n) ON q.id = e.id AND q.seq = e.n
			WHERE q.headers::text = '{"tenant":"north"}' AND convert_from(q.body, 'UTF8') = format('{"n": %%s}', n - 1)`, queue), ids); n != int64(len(bodies)) {
			t.Errorf("%s: %d copies are what was published, in its order; want %d", queue, n, len(bodies))
		}
	}
	m.At, m.TTL, m.ID = time.Now().Add(time.Hour), 2*time.Hour, "0198C0DE-0000-7000-8000-000000000001"
	events, _, err = d.Publish(t.Context(), m, []byte(`1`))
	if err != nil || len(events) != 1 || events[0].ID != strings.ToLower(m.ID) {
		t.Errorf("at a time: %v, err %v", events, err)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.delayed WHERE id = $1 AND due_at BETWEEN now() + interval '59 minutes' AND now() + interval '61 minutes'
		AND expires_at BETWEEN now() + interval '119 minutes' AND now() + interval '121 minutes'`, m.ID); n != 2 {
		t.Errorf("%d copies are delayed as they should be, want 2", n)
	}
	var pg *pgconn.PgError
	if _, _, err := d.Publish(t.Context(), ops.Outgoing{Type: "no spaces"}, []byte(`1`)); !errors.As(err, &pg) {
		t.Errorf("a type that is none: err %v", err)
	}
}

func TestReadLines(t *testing.T) {
	t.Parallel()
	bodies, err := ops.ReadLines(strings.NewReader("{\"a\":1}\r\n\n 2\nnull"))
	if err != nil || fmt.Sprintf("%s", bodies) != `[{"a":1} 2 null]` {
		t.Errorf("got %s, err %v", bodies, err)
	}
	var body *ops.BodyError
	if bodies, err := ops.ReadLines(strings.NewReader("1\n\n{\n}\n")); bodies != nil || !errors.As(err, &body) || body.Line != 3 || body.Number != 2 {
		t.Errorf("a body over two lines: got %s, err %v", bodies, err)
	}
}

func TestReadBodies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"\n \r\n", ""},
		{`{"a":1}`, `{"a":1}`},
		{"{\"a\":1}\n\n{\"a\":2}\r\n", `{"a":1}|{"a":2}`},
		{"1\n\"two\"\nnull", `1|"two"|null`},
		{"\n{\n  \"a\": [\n    1,\n    2\n  ]\n}\n{\"b\":2}\n", "{\n  \"a\": [\n    1,\n    2\n  ]\n}|{\"b\":2}"},
		{`{"brace":"}{\"["}` + "\n2", `{"brace":"}{\"["}|2`},
		{`{"a":"back\\"}` + "\n2", `{"a":"back\\"}|2`},
	} {
		bodies, err := ops.ReadBodies(strings.NewReader(c.in))
		var got []string
		for _, b := range bodies {
			got = append(got, string(b))
		}
		if err != nil || strings.Join(got, "|") != c.want {
			t.Errorf("%q: got %q, err %v", c.in, got, err)
		}
	}
	for _, c := range []struct {
		in   string
		line int
	}{
		{"{\"a\":1}\n{\"a\":}\n{\"a\":3}", 2},
		{"{\"a\":1}\n\n{\"a\":\n{\"a\":3}\n", 3}, // opened and never closed
		{"{\"a\":1}\n{\"a\": \"open}\n{\"a\":3}\n", 2},
		{"}\n", 1},
		{"1 2\n", 1},
		{"hello\n", 1},
		{"1\n2\n\"\xff\"\n", 3},
		{"1\n[\n" + strings.Repeat("1,\n", ops.MaxBody/3+1), 2},
	} {
		bodies, err := ops.ReadBodies(strings.NewReader(c.in))
		var body *ops.BodyError
		if bodies != nil || !errors.As(err, &body) || body.Line != c.line || !strings.HasPrefix(err.Error(), fmt.Sprintf("line %d: ", c.line)) {
			t.Errorf("%.40q: got %q, err %v, want line %d", c.in, bodies, err, c.line)
		}
	}
}
