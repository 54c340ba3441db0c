package sqlq_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sqlq/sqlq/sqlq"
)

// codecOf returns a Codec that writes JSON in hexadecimal digits after its own name, so that no other reads its bodies.
func codecOf(contentType string) sqlq.Codec {
	return sqlq.Codec{
		ContentType: contentType,
		Encode: func(message any) ([]byte, error) {
			text, err := json.Marshal(message)
			return []byte(contentType + " " + hex.EncodeToString(text)), err
		},
		Decode: func(body []byte, into any) error {
			text, found := strings.CutPrefix(string(body), contentType+" ")
			if !found {
				return fmt.Errorf("%.20q is none of %s", body, contentType)
			}
			decoded, err := hex.DecodeString(text)
			return errors.Join(err, json.Unmarshal(decoded, into))
		},
	}
}

// number is a message whose body another service writes.
type number struct{ N int }

// MessageType implements sqlq.Message.
func (number) MessageType() string { return "post.Number" }

// onlyUndecodable wants handlers to fail with ErrUndecodable only.
func onlyUndecodable(t *testing.T) func(sqlq.HandleFunc) sqlq.HandleFunc {
	return func(next sqlq.HandleFunc) sqlq.HandleFunc {
		return func(ctx context.Context, in *sqlq.Incoming) error {
			err := next(ctx, in)
			if err != nil && !errors.Is(err, sqlq.ErrUndecodable) {
				t.Errorf("it failed with %v", err)
			}
			return err
		}
	}
}

// A body is read by the Codec of its content type, compared without parameters and case, by the one that claims the family, or
// not at all; and then the error names the type and those that there are.
func TestCodecIsChosenByContentType(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	family := codecOf("text/family")
	family.Match = func(mediaType string) bool { return strings.HasSuffix(mediaType, "+json") }
	family.Decode = json.Unmarshal
	c := open(t, pool, sqlq.Config{Codecs: []sqlq.Codec{codecOf("text/first"), family, codecOf("Text/Third; version=3")}})
	execSQL(t, pool, `SELECT sqlq.create_queue('numbers')`)
	first, third := `text/first 7b224e223a377d`, `Text/Third; version=3 7b224e223a377d` // {"N":7}
	for _, m := range []struct{ contentType, body, fails string }{
		{"", `{"N":7}`, ""},
		{"application/json", `{"N":7}`, ""},
		{"application/json; charset=utf-8", `{"N":7}`, ""},
		{`application/JSON ; charset="utf-8"`, `{"N":7}`, ""},
		{" Application/Json", `{"N":7}`, ""},
		{"application/vnd.post.number.v2+json", `{"N":7}`, ""},
		{"application/cloudevents+JSON; charset=UTF-8", `{"N":7}`, ""},
		{"text/first", first, ""},
		{"TEXT/FIRST; q=1", first, ""},
		{"text/third", third, ""},
		{"text/third; version=4", third, ""},
		{"text/first", `{"N":7}`, `body cannot be decoded as post.Number: "{\"N\":7}" is none of text/first`},
		{"application/json", first, `body cannot be decoded as post.Number: invalid character`},
		{"text/none", first, `its content type is "text/none", and this process reads "text/first", "text/family", "text/third", "application/json" (Config.Codecs)`},
		{"json", `{"N":7}`, `its content type "json" is not a media type: mime: no subtype`},
		{"application/json; charset", `{"N":7}`, `its content type "application/json; charset" is not a media type: mime: invalid media parameter`},
		{"a b", `{"N":7}`, `its content type "a b" is not a media type`},
		{strings.Repeat("é", 1000), `{"N":7}`, `is not a media type`},
	} {
		headers := "{}"
		if m.contentType != "" {
			encoded, _ := json.Marshal(map[string]string{"sqlq-content-type": m.contentType, "fails": m.fails})
			headers = string(encoded)
		}
		execSQL(t, pool, `INSERT INTO sqlq.q_numbers (id, type, headers, body) VALUES (sqlq.uuid_v7(), 'post.Number', $1::text::json, convert_to($2, 'UTF8'))`, headers, m.body)
	}
	seen := make(chan string, 100)
	run(t, c, sqlq.Endpoint{Name: "numbers", Middleware: []func(sqlq.HandleFunc) sqlq.HandleFunc{onlyUndecodable(t)}, Handlers: []sqlq.Handler{sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[number]) error {
		seen <- fmt.Sprintf("%s %d %s", d.Headers["sqlq-content-type"], d.Message.N, d.Headers["fails"])
		return nil
	})}})
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_numbers`)
	for range 11 {
		if got := <-seen; !strings.HasSuffix(got, " 7 ") {
			t.Errorf("the handler saw %q", got)
		}
	}
	rows, err := pool.Query(t.Context(), `SELECT headers->>'fails', message, attempts FROM sqlq.error`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	failed := 0
	for ; rows.Next(); failed++ {
		var want, got string
		var attempts int
		if err := rows.Scan(&want, &got, &attempts); err != nil {
			t.Fatal(err)
		}
		if want == "" || !strings.Contains(got, want) || attempts != 1 {
			t.Errorf("failed with %q at attempt %d, want %q at the first", got, attempts, want)
		}
	}
	if failed != 7 {
		t.Errorf("%d failed, want 7", failed)
	}
}

// What is sent is encoded by the first Codec that is for it, and its content type travels unless it is JSON's. Adding a Codec in
// front of another changes no message that is under way.
func TestFirstCodecEncodes(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	onlyNumbers := codecOf("text/numbers")
	onlyNumbers.Encodes = func(m any) bool { _, is := m.(number); return is }
	for want, all := range map[string][]sqlq.Codec{
		`json {"N":1} json {"N":0}`:                                                                                             nil,
		`text/a text/a 7b224e223a317d text/a text/a 7b224e223a307d`:                                                             {codecOf("text/a"), codecOf("text/b")},
		`text/numbers text/numbers 7b224e223a317d json {"N":0}`:                                                                 {onlyNumbers},
		`text/numbers text/numbers 7b224e223a317d text/b text/b 7b224e223a307d`:                                                 {onlyNumbers, codecOf("text/b")},
		`application/json; v=1 application/json; v=1 7b224e223a317d application/json; v=1 application/json; v=1 7b224e223a307d`: {codecOf("application/json; v=1")},
	} {
		c := open(t, pool, sqlq.Config{Codecs: all})
		for _, m := range []sqlq.Message{number{1}, letter{}} {
			if err := c.Send(t.Context(), m, sqlq.To("post")); err != nil {
				t.Fatal(err)
			}
		}
		var got string
		if err := pool.QueryRow(t.Context(), `SELECT string_agg(coalesce(headers->>'sqlq-content-type', 'json') || ' ' || convert_from(body, 'UTF8'), ' ' ORDER BY seq) FROM sqlq.q_post`).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("stored %q, want %q", got, want)
		}
		execSQL(t, pool, `TRUNCATE sqlq.q_post`)
	}
}

// A header that says how the body is to be read, and that this release does not know, fails its message at once, with its name.
// Every other header of the library's that it does not know is ignored.
func TestUnknownHeaders(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('numbers')`)
	mustKnow := []string{"sqlq-content-encoding", "sqlq-content-claim", "sqlq-content-", "sqlq-content-x", "Sqlq-Content-Type", "SQLQ-CONTENT-ENCODING", "sqlq-content-type2"}
	ignored := []string{"sqlq-key", "sqlq-reply-to", "sqlq-reply-by", "sqlq-in-reply-to", "sqlq-saga", "sqlq-place", "sqlq-scheduled-for", "sqlq-", "sqlq-contents", "sqlq-content", "sqlq-tomorrow",
		"Sqlq-Crashes", "xsqlq-content-encoding", "content-encoding"}
	for _, name := range append(mustKnow, ignored...) {
		execSQL(t, pool, `INSERT INTO sqlq.q_numbers (id, type, headers, body) VALUES (sqlq.uuid_v7(), 'post.Number', json_build_object('name', $1::text, $1::text, 'gzip'), '{"N":7}')`, name)
	}
	seen := make(chan string, 100)
	c := open(t, pool, sqlq.Config{})
	run(t, c, sqlq.Endpoint{Name: "numbers", Middleware: []func(sqlq.HandleFunc) sqlq.HandleFunc{onlyUndecodable(t)}, Handlers: []sqlq.Handler{sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[number]) error {
		seen <- d.Headers["name"]
		return nil
	})}})
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_numbers`)
	eventuallyCount(t, pool, len(mustKnow), `SELECT count(*) FROM sqlq.error WHERE attempts = 1 AND message LIKE '%its header "' || (headers->>'name') || '" says how its body is to be read%' AND headers->>(headers->>'name') = 'gzip'`)
	if len(seen) != len(ignored) {
		t.Errorf("%d were handled, want %d", len(seen), len(ignored))
	}
	if s := statsOf(c); s.Leased+s.Retried != 0 {
		t.Errorf("%+v", s)
	}
}
