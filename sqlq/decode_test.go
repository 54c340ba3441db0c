package sqlq

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

var storedHeaders = []string{``, `{}`, ` { } `, `null`, `[]`, `1`, `"a"`, `{"a":"b"}`, `{"a":1}`, `{"a":null}`, `{"a":{"b":"c"}}`, `{"a":"b","a":"c"}`, `{"a":"\u0000"}`, `{"a":"\ud800"}`, `{`, `{"a":"b"`,
	`{"sqlq-crashes":"1","sqlq-replays":"x","sqlq-first-failed-at":"never"}`, `{"sqlq-first-failed-at":"2026-01-02T03:04:05.000006Z","sqlq-replays":"99999999999999999999"}`,
	`{"sqlq-content-type":"text/x"}`, `{"sqlq-correlation-id":"","sqlq-conversation-id":"c"}`, "{\"\xff\":\"\xff\"}", strings.Repeat(`[`, 20000)}

// Whatever lies in the database as headers, a message is received, or undecodable; and what is written back is JSON.
func FuzzStoredHeaders(f *testing.F) {
	for _, h := range storedHeaders {
		f.Add([]byte(h))
	}
	f.Fuzz(func(t *testing.T, headers []byte) {
		in := &Incoming{codecs: newCodecs(nil)}
		if err := in.receive(&store.Message{Headers: headers, Body: []byte(`1`)}, ""); err != nil {
			if !errors.Is(err, ErrUndecodable) || in.Headers == nil || len(in.Headers) != 0 {
				t.Errorf("%v with headers %v", err, in.Headers)
			}
			return
		}
		if in.CorrelationID == "" || in.ConversationID == "" {
			t.Error("no correlation or conversation id")
		}
		if _, replays, rest := in.history(); rest != nil && *rest != "" {
			var others Headers
			if err := json.Unmarshal([]byte(*rest), &others); err != nil || others[headerReplays]+others[headerCrashes]+others[headerFirstFailedAt] != "" {
				t.Errorf("the headers that a failed message keeps are %s: %v; %d replays", *rest, err, replays)
			}
		}
		if begun := in.headersUpToFirstFailure(); begun != nil {
			whole := *begun + time.Now().UTC().Format(time.RFC3339Nano) + `"}`
			var all Headers
			if err := json.Unmarshal([]byte(whole), &all); err != nil || all[headerFirstFailedAt] == "" {
				t.Errorf("the headers that a retried message gets are %s: %v", whole, err)
			}
		}
	})
}

// A body of another content type is undecodable, and so is one that is not what it says. Media types are the same in any case and
// with any parameters.
func FuzzContentType(f *testing.F) {
	for _, c := range []string{"", "application/json", "Application/JSON", "application/json ", "application/json;charset=utf-8", "APPLICATION/JSON; a=b; a=c", "json", "text/x", "\x00", "\xff", strings.Repeat("x", 300)} {
		f.Add(c, []byte(`{"N":1}`))
		f.Add(c, []byte(`{`))
	}
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		in := &Incoming{codecs: newCodecs(nil), Headers: Headers{headerContentType: contentType}, Body: body}
		var into struct{ N int }
		err := in.decode(&into)
		if err != nil && !errors.Is(err, ErrUndecodable) || err == nil && contentType != "" && !strings.HasPrefix(strings.ToLower(strings.TrimSpace(contentType)), jsonContentType) {
			t.Errorf("content type %q: %v", contentType, err)
		}
	})
}

// What is kept of an error is text that the database takes, and bounded.
func FuzzDescribe(f *testing.F) {
	for _, s := range []string{"", "x", "\x00", "\xff", "漢", strings.Repeat("漢", 3000), strings.Repeat("\xff", 9000), "order 17 of 10.0.0.1:80, 0198c0de-0000-7000-8000-000000000001"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, messageType, text string) {
		d := describe(messageType, errors.Join(errors.New(text), &panicked{text, text}))
		for _, s := range append([]string{d.Message, d.ErrorType, *d.Stack, d.Fingerprint}, d.Chain...) {
			if cleanText(s) != s || len(s) > maxStack+3 {
				t.Errorf("%q of %d bytes is kept", s, len(s))
			}
		}
		if len(d.Fingerprint) != 16 || d.Fingerprint != fingerprint(messageType, d.ErrorType, errors.Join(errors.New(text), &panicked{text, text}).Error()) {
			t.Errorf("fingerprint %q", d.Fingerprint)
		}
	})
}
