package ops_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sqlq/sqlq/sqlq/ops"
)

func (d database) failed(name string) ops.FailedMessage {
	d.t.Helper()
	m, err := d.Failed.Show(d.t.Context(), name)
	if err != nil {
		d.t.Fatal(err)
	}
	return m
}

func TestEditFailed(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.fail("sales", "g1", 1)
	d.exec(`UPDATE sqlq.error SET headers = '{"tenant":"north","sqlq-conversation-id":"<c>"}'`)
	o := d.By(ops.Actor{OSUser: "ann", Host: "desk", Reason: "moved"})
	for _, c := range []struct {
		edit          ops.Edit
		changed       bool
		headers, body string
	}{
		{ops.Edit{}, false, `{"tenant":"north","sqlq-conversation-id":"<c>"}`, `{"order":1}`},
		{ops.Edit{Headers: map[string]string{"tenant": "north"}, Body: []byte(" { \"order\" : 1 }\n")}, false, `{"tenant":"north","sqlq-conversation-id":"<c>"}`, `{"order":1}`},
		{ops.Edit{Headers: map[string]string{"tenant": "south", "a": "<b>"}}, true, `{"a":"<b>","sqlq-conversation-id":"<c>","tenant":"south"}`, `{"order":1}`},
		{ops.Edit{Body: []byte("{\n\"order\": 2.50}")}, true, `{"a":"<b>","sqlq-conversation-id":"<c>","tenant":"south"}`, `{"order":2.50}`},
		{ops.Edit{Headers: map[string]string{}}, true, `{"sqlq-conversation-id":"<c>"}`, `{"order":2.50}`},
	} {
		changed, err := o.Failed.Edit(t.Context(), d.failed("1"), c.edit)
		m := d.failed("1")
		if err != nil || changed != c.changed || string(m.Headers) != c.headers || string(m.Body) != c.body {
			t.Errorf("%+v: changed %v, err %v, headers %s, body %s", c.edit, changed, err, m.Headers, m.Body)
		}
	}
	history, err := d.History(t.Context(), d.failed("1").ID)
	if err != nil || len(history) != 3 {
		t.Fatalf("%+v, err %v", history, err)
	}
	first, second := history[0], history[1]
	if first.What != "edit" || first.OSUser != "ann" || first.Host != "desk" || first.Reason != "moved" || first.Role == "" || first.Operation == 0 ||
		first.Queue != "sales" || first.Attempts != 7 || first.FailedAt == nil || first.FailedOn != "h1" || first.Error != "card refused" ||
		string(first.Headers) != `{"tenant":"north","sqlq-conversation-id":"<c>"}` || first.Body != nil || string(second.Body) != `{"order":1}` {
		t.Errorf("%+v\n%+v", first, second)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.operation WHERE kind = 'edit' AND status = 'done' AND done = 1 AND queue = 'sales'`); n != 3 {
		t.Errorf("%d edits are written down", n)
	}
}

// What could not be sent is refused, and nothing is written.
func TestEditRefused(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.fail("sales", "g1", 2)
	d.exec(`UPDATE sqlq.error SET body = '\xff' WHERE seq = 2`)
	before := d.text(`SELECT string_agg(e::text, ' ') FROM sqlq.error e`)
	lots := map[string]string{}
	for i := range 101 {
		lots[fmt.Sprint("h", i)] = ""
	}
	for _, c := range []struct {
		name string
		edit ops.Edit
		want string
	}{
		{"1", ops.Edit{Body: []byte("{\n\n,}")}, "in line 3"},
		{"1", ops.Edit{Body: []byte("{")}, "not JSON"},
		{"1", ops.Edit{Body: []byte{}}, "not JSON"},
		{"1", ops.Edit{Body: []byte("\"\xff\"")}, "UTF-8"},
		{"1", ops.Edit{Body: json.RawMessage(`"` + strings.Repeat("x", ops.MaxBody) + `"`)}, "more than"},
		{"2", ops.Edit{Body: make([]byte, ops.MaxBody+1)}, "more than"},
		{"1", ops.Edit{Headers: map[string]string{"sqlq-crashes": "1"}}, "sqlq-crashes"},
		{"1", ops.Edit{Headers: map[string]string{"SQLQ-x": "1"}}, "SQLQ-x"},
		{"1", ops.Edit{Headers: map[string]string{"": "1"}}, `header ""`},
		{"1", ops.Edit{Headers: map[string]string{"a": "\x00"}}, "headers"},
		{"1", ops.Edit{Headers: map[string]string{"a": strings.Repeat("x", 64<<10)}}, "too large"},
		{"1", ops.Edit{Headers: lots}, "too large"},
	} {
		changed, err := d.Failed.Edit(t.Context(), d.failed(c.name), c.edit)
		if changed || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("want %q: changed %v, err %v", c.want, changed, err)
		}
	}
	if after := d.text(`SELECT string_agg(e::text, ' ') FROM sqlq.error e`); after != before {
		t.Errorf("the error table has changed: %s", after)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.operation`) + d.number(`SELECT count(*) FROM sqlq.history`); n != 0 {
		t.Errorf("%d rows are written down", n)
	}
}

// A message that somebody else changed, replayed or deleted meanwhile is left as it is.
func TestEditConflict(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 3)
	edit := ops.Edit{Body: []byte(`{"order":3}`)}
	for _, change := range []string{`UPDATE sqlq.error SET body = '{"order":2}' WHERE seq = 1`, `UPDATE sqlq.error SET headers = '{"tenant":"south"}' WHERE seq = 1`,
		`UPDATE sqlq.error SET headers = NULL WHERE seq = 1`} {
		m := d.failed("1")
		d.exec(change)
		if changed, err := d.Failed.Edit(t.Context(), m, edit); changed || !errors.Is(err, ops.ErrChanged) {
			t.Errorf("%s: changed %v, err %v", change, changed, err)
		}
	}
	m := d.failed("2")
	if _, err := d.Failed.Replay(t.Context(), ops.Filter{Names: []string{"2"}}, ops.ReplayOptions{}); err != nil {
		t.Fatal(err)
	}
	var gone *ops.NoFailedError
	if changed, err := d.Failed.Edit(t.Context(), m, edit); changed || !errors.As(err, &gone) {
		t.Errorf("replayed: changed %v, err %v", changed, err)
	}
	// Of two that edit at once one wins.
	m = d.failed("3")
	type outcome struct {
		changed bool
		err     error
	}
	outcomes := make(chan outcome)
	for i := range 2 {
		go func() {
			changed, err := d.Failed.Edit(t.Context(), m, ops.Edit{Body: fmt.Appendf(nil, `{"order":%d}`, 10+i)})
			outcomes <- outcome{changed, err}
		}()
	}
	a, b := <-outcomes, <-outcomes
	if a.changed == b.changed || !errors.Is(errors.Join(a.err, b.err), ops.ErrChanged) {
		t.Errorf("two at once: %v and %v", a, b)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.history`); n != 1 && n != 2 { // the replay may have written one
		t.Errorf("%d rows of history", n)
	}
}
