package ops

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// bodies are such that a careless way through JSON would change them, or could not take them.
var bodies = []string{`{}`, `null`, `"text"`, `{"a":1,"a":2}`, `{"n":12345678901234567890,"e":1e400,"z":1.10}`, `{"s":"<&>\u0041\u2028"}`, "\"\u2028\"", `{ "a": 1 }`, "{}\n",
	``, ` `, `{`, "\xff\x00", "\x00", `"\ud800"`, strings.Repeat(`[`, 9999) + strings.Repeat(`]`, 9999), strings.Repeat(`[`, 20000)}

// What AppendLine writes parseLine reads, byte for byte, and it is one line of JSON.
func TestLineRoundTrip(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 1, 10, 0, 0, 123456000, time.UTC)
	for _, text := range bodies {
		m := Message{ID: "0198c0de-0000-7000-8000-000000000001", Type: "sales.PlaceOrder", SentAt: at, ExpiresAt: &at, Attempt: 3,
			Headers: json.RawMessage(`{"a":"<\u0000\ud800>","b":""}`), Body: []byte(text), DueAt: &at, Why: "retry", Error: "timed\nout"}
		line, err := AppendLine([]byte("before"), m)
		if err != nil {
			t.Fatalf("%.50q: %v", text, err)
		}
		line, found := bytes.CutPrefix(line, []byte("before"))
		if !found || bytes.Count(line, []byte("\n")) != 1 || !json.Valid(line) {
			t.Errorf("%.50q: not a line of JSON: %.100q", text, line)
		}
		got, err := parseLine(line)
		if err != nil {
			t.Errorf("%.50q: %v", text, err)
			continue
		}
		if string(got.Body) != text || got.Body == nil || string(got.Headers) != string(m.Headers) || got.ID != m.ID || got.Type != m.Type ||
			!got.SentAt.Equal(at) || !got.ExpiresAt.Equal(at) || !got.DueAt.Equal(at) || got.Attempt != 3 || got.Why != "retry" || got.Error != m.Error {
			t.Errorf("%.50q: came back as %+v", text, got)
		}
	}
}

func TestParseLineDamaged(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		``:                                     "not a JSON object",
		`{"type":"T","body":{}`:                "not a JSON object",
		`[]`:                                   "not a JSON object",
		`{"type":"T","body":"` + "\xff" + `"}`: "not UTF-8",
		`{"type":"T"}`:                         "body is missing",
		`{"body":{}}`:                          `type "" is not one`,
		`{"type":"no spaces","body":{}}`:       "is not one",
		`{"type":7,"body":{}}`:                 "type cannot be a number",
		`{"id":"x","type":"T","body":{}}`:      "not a UUID",
		`{"type":"T","headers":[],"body":1}`:   "headers are not",
		`{"type":"T","headers":{"a":null},"body":1}`:                                                                     `header "a" is not a string`,
		`{"type":"T","body_encoding":"base64","body":{}}`:                                                                "not a string of base64",
		`{"type":"T","body_encoding":"base64","body":"?"}`:                                                               "not base64",
		`{"type":"T","body_encoding":"hex","body":"00"}`:                                                                 `"hex" is unknown`,
		`{"type":"T","attempt":-1,"body":1}`:                                                                             "attempt -1",
		`{"type":"T","attempt":32768,"body":1}`:                                                                          "attempt 32768",
		`{"type":"T","sent_at":"yesterday","body":1}`:                                                                    "",
		`{"type":"T","sent_at":"0000-01-01T00:00:00Z","body":1}`:                                                         "out of range",
		`{"type":"T","due_at":"2026-01-01T00:00:00Z","why":"","body":1, "why":"x"}`:                                      `why is "x"`,
		`{"type":"T","headers":{"sqlq-replays":"99999999999"},"body":1}`:                                                 `"sqlq-replays" is "99999999999"`,
		`{"type":"T","headers":{"sqlq-crashes":"-1"},"body":1}`:                                                          `"sqlq-crashes" is "-1"`,
		`{"type":"T","headers":{"sqlq-first-failed-at":"0000-01-01T00:00:00Z"},"body":1}`:                                `"sqlq-first-failed-at"`,
		`{"type":"T","headers":{"sqlq-first-failed-at":"2026-02-30T00:00:00Z"},"body":1}`:                                `"sqlq-first-failed-at"`,
		`{"type":"T","headers":{"a":"` + strings.Repeat("x", 65536) + `"},"body":1}`:                                     "the limits are",
		`{"type":"T","headers":{"sqlq-correlation-id":"` + strings.Repeat("x", 8192) + `"},"body":1}`:                    "the limits are",
		`{"type":"T","headers":{"a":"` + strings.Repeat(`\u0001`, 65536) + strings.Repeat(" ", 140_000) + `"},"body":1}`: "the limit is",
		`{"type":"T","headers":{` + manyHeaders(101) + `},"body":1}`:                                                     "the limits are",
	} {
		if _, err := parseLine([]byte(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: err %v, want %q", line, err, want)
		}
	}
}

// manyHeaders are the members of a JSON object.
func manyHeaders(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"h%d":""`, i)
	}
	return b.String()[1:]
}

// The library's bookkeeping comes along with a message that was sent before, and with no other.
func TestParseLineBookkeeping(t *testing.T) {
	t.Parallel()
	const headers = `{"a":"b","sqlq-first-failed-at":"2026-01-02T03:04:05.000006Z","sqlq-replays":"7","sqlq-crashes":"1"}`
	for sent, want := range map[string]string{`"sent_at":"2026-01-01T00:00:00Z",`: headers, ``: `{"a":"b"}`} {
		m, err := parseLine([]byte(`{"type":"T",` + sent + `"headers":` + headers + `,"body":1}`))
		if err != nil || string(m.Headers) != want {
			t.Errorf("%q: %s, %v, want %s", sent, m.Headers, err, want)
		}
	}
	if m, err := parseLine([]byte(`{"type":"T","headers":{"sqlq-replays":"7"},"body":1}`)); err != nil || m.Headers != nil {
		t.Errorf("nothing else: %s, %v", m.Headers, err)
	}
	if _, err := parseLine([]byte(`{"type":"T","headers":{` + manyHeaders(100) + `},"body":1}`)); err != nil {
		t.Errorf("a hundred headers: %v", err)
	}
}

// A time that JSON has no word for is the last, or the first, that it has.
func TestLineOfFarTimes(t *testing.T) {
	t.Parallel()
	far, past := time.Date(294276, 12, 31, 0, 0, 0, 0, time.UTC), time.Date(-4712, 1, 1, 0, 0, 0, 0, time.UTC)
	line, err := AppendLine(nil, Message{ID: "0198c0de-0000-7000-8000-000000000001", Type: "T", SentAt: past, ExpiresAt: &far, Body: []byte("1")})
	if err != nil || !strings.Contains(string(line), `"sent_at":"0001-01-01T00:00:00Z","expires_at":"9999-12-31T23:59:59Z"`) {
		t.Errorf("%s, %v", line, err)
	}
	if m, err := parseLine(line); err != nil || m.ExpiresAt.Year() != 9999 {
		t.Errorf("%+v, %v", m, err)
	}
}

// Whatever stands in a line, it is refused or is a message that comes back as it is.
func FuzzParseLine(f *testing.F) {
	for _, body := range bodies[:15] {
		line, err := AppendLine(nil, Message{ID: "0198c0de-0000-7000-8000-000000000001", Type: "T", Headers: json.RawMessage(`{"a":"b"}`), Body: []byte(body)})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(line)
	}
	f.Add([]byte(`{"type":"T","attempts":7,"attempt":2,"failed_at":"2026-01-01T10:05:00Z","expires_at":"2026-01-02T10:00:00Z","error":"x","body": {} }`))
	f.Add([]byte(`{"type":"T","due_at":"2026-01-01T10:05:00+02:00","body":1,"headers":{ "a":"b", "a":"c" }}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := parseLine(line)
		if err != nil {
			return
		}
		if m.Body == nil || m.Attempt < 0 || (m.DueAt == nil) != (m.Why == "") {
			t.Fatalf("%q reads as %+v", line, m)
		}
		again := Message{ID: m.ID, Type: m.Type, Headers: m.Headers, Body: m.Body, Attempt: m.Attempt, DueAt: m.DueAt, Why: m.Why, Error: m.Error, ExpiresAt: m.ExpiresAt}
		if m.ID == "" {
			again.ID = "0198c0de-0000-7000-8000-000000000001"
		}
		written, err := AppendLine(nil, again)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		back, err := parseLine(written)
		if err != nil {
			t.Fatalf("%q, written as %q: %v", line, written, err)
		}
		if !slices.Equal(back.Body, m.Body) || back.Type != m.Type || back.Attempt != m.Attempt || back.Why != m.Why || back.Error != m.Error {
			t.Errorf("%q came back as %+v", line, back)
		}
	})
}
