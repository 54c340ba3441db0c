package ops

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// The name of a failed message is a number or an id in its usual form, or refused.
func FuzzParseName(f *testing.F) {
	for _, s := range []string{"", "1", "-1", "+1", "9223372036854775808", "0x1", "1e3", "0198c0de-0000-7000-8000-000000000001", "0198C0DE00007000800000000000000A", "{0198c0de-0000-7000-8000-000000000001}",
		"0198c0de-0000-7000-8000-00000000000g", "'; DROP TABLE sqlq.error; --", "\x00", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		seq, id, err := parseName(name)
		if err != nil && (seq != 0 || id != "") || id != "" && (len(id) != 36 || seq != 0) {
			t.Errorf("%q reads as %d, %q, %v", name, seq, id, err)
		}
		if again, err := parseID(id); id != "" && (err != nil || again != id) {
			t.Errorf("%q reads as %q, which reads as %q, %v", name, id, again, err)
		}
	})
}

// A moment is understood or pointed at, and one that is understood is none that says nothing.
func FuzzParseMoment(f *testing.F) {
	for _, s := range []string{"", "90m", "2d", "1w2d3h4m5s6ms7us8µs9ns", "1.5h", "+1h", "-1h", "1", "m", "1x", "1e9h", "99999999999999999999h", "0", "0s", "+", "..h",
		"2026-03-01T15:04:05Z", "2026-03-01T15:04:05+01:00", "2026-03-01 15:04", "2026-03-01", "0000-01-01", "0001-01-01", "9999-12-31T23:59:59Z", "2026-02-30", "é", "1é", "\xff", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseMoment(text)
		if err != nil {
			pointsInto(t, text, err)
		} else if (Filter{Until: m}).ChoosesAll() || m.stored().Ago == nil && m.At.IsZero() {
			t.Errorf("%q reads as no moment: %+v", text, m)
		}
	})
}

func TestParseMoment(t *testing.T) {
	for text, want := range map[string]time.Duration{"90m": 90 * time.Minute, "2d": 48 * time.Hour, "1w": 7 * 24 * time.Hour, "1h30m": 90 * time.Minute,
		"+1h": -time.Hour, "0s": 0, "1.5h": 90 * time.Minute, "250ms": 250 * time.Millisecond} {
		if m, err := ParseMoment(text); err != nil || m != Ago(want) {
			t.Errorf("%s: %+v, %v", text, m, err)
		}
	}
	want := time.Date(2026, 3, 1, 15, 4, 5, 0, time.UTC)
	if m, err := ParseMoment("2026-03-01T16:04:05+01:00"); err != nil || !m.At.Equal(want) {
		t.Errorf("RFC 3339: %+v, %v", m, err)
	}
	minute := time.Date(2026, 3, 1, 15, 4, 0, 0, time.UTC)
	for _, text := range []string{"2026-03-01T15:04Z", "2026-03-01 15:04Z", "2026-03-01T16:04+01:00", "2026-03-01 15:04:00Z", "2026-03-01T15:04:00Z"} {
		if m, err := ParseMoment(text); err != nil || !m.At.Equal(minute) {
			t.Errorf("%s: %+v, %v", text, m, err)
		}
	}
	for _, text := range []string{"2026-03-01T15:04", "2026-03-01 15:04"} {
		if m, err := ParseMoment(text); err != nil || !m.At.Equal(time.Date(2026, 3, 1, 15, 4, 0, 0, time.Local)) {
			t.Errorf("%s: %+v, %v", text, m, err)
		}
	}
	for text, at := range map[string]int{"5x": 1, "1h5": 3, "h": 0, "1h2y": 3, "": 0, "0001-01-01": 0, "+3q": 2} {
		_, err := ParseMoment(text)
		var wrong *FilterError
		if !errors.As(err, &wrong) || wrong.At != at {
			t.Errorf("%q: %v, want it to be pointed at %d", text, err, at)
		}
	}
}

// A range is understood or pointed at, and one that is understood has an end, and its ends in order.
func FuzzParseRange(f *testing.F) {
	for _, s := range []string{"", "3", "3..", "..5", "3..5", ">2", ">=3", "<5", "<=4", "..", "5..3", "-1", ">9223372036854775807", "<-9223372036854775808", "99999999999999999999",
		"2147483648", "3...5", "3..5..7", "> 2", "a", "\x00", "é..5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRange(text)
		switch {
		case err != nil:
			pointsInto(t, text, err)
		case r == Range{}:
			t.Errorf("%q reads as every number", text)
		case r.Min != nil && r.Max != nil && *r.Min > *r.Max:
			t.Errorf("%q reads as %d..%d", text, *r.Min, *r.Max)
		}
	})
}

func TestParseRange(t *testing.T) {
	for text, want := range map[string][2]int{"3": {3, 3}, "3..": {3, 99}, "..5": {-99, 5}, "3..5": {3, 5}, ">2": {3, 99}, ">=3": {3, 99}, "<5": {-99, 4}, "<=4": {-99, 4}} {
		r, err := ParseRange(text)
		got := [2]int{-99, 99}
		if r.Min != nil {
			got[0] = *r.Min
		}
		if r.Max != nil {
			got[1] = *r.Max
		}
		if err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", text, got, err, want)
		}
	}
}

// pointsInto wants an error that points at a place of the text, and that can be shown.
func pointsInto(t *testing.T, text string, err error) {
	t.Helper()
	var wrong *FilterError
	if !errors.As(err, &wrong) || wrong.At < 0 || wrong.At > len(text) || wrong.Why == "" || !strings.HasSuffix(wrong.Error(), "^") {
		t.Errorf("%q: %v", text, err)
	}
}

// What Windows' editors put in front of a text is no part of it.
func TestByteOrderMark(t *testing.T) {
	t.Parallel()
	const bom = "\ufeff"
	in := lines{in: text(strings.NewReader(bom + `{"a":1}` + "\n" + bom + "\n"))}
	if line, err := in.next(); err != nil || string(line) != `{"a":1}` {
		t.Errorf("an import's first line: %q, %v", line, err)
	}
	if line, err := in.next(); err != nil || string(line) != bom {
		t.Errorf("its second: %q, %v", line, err)
	}
	for _, read := range []func(string) (int, error){
		func(s string) (int, error) { b, err := ReadBodies(strings.NewReader(s)); return len(b), err },
		func(s string) (int, error) { b, err := ReadLines(strings.NewReader(s)); return len(b), err },
	} {
		if n, err := read(bom + "{}\n[]\n"); n != 2 || err != nil {
			t.Errorf("bodies: %d, %v", n, err)
		}
	}
	if body, err := editedBody([]byte(`{"a":1}`), []byte(bom+`{"a": 2}`)); err != nil || string(body) != `{"a":2}` {
		t.Errorf("an edited body: %s, %v", body, err)
	}
}

// A command that is to be copied into a shell holds names that others chose, as one word each, and steers no terminal.
func TestShellWord(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]string{
		"billing": "billing", "": "''", "a b": "'a b'", "$(rm -rf ~)": "'$(rm -rf ~)'", "it's": `'it'\''s'`, "日本": "'日本'",
		"a\x1b[2J'\\\n\u009b\u202e": `$'a\x1b[2J\'\\\x0a\xc2\x9b\xe2\x80\xae'`,
	} {
		if got := shellWord(word); got != want {
			t.Errorf("%q: got %s, want %s", word, got, want)
		}
	}
	if got := (&QueueGoneError{Queues: []string{"a; reboot", "b"}}).Error(); !strings.HasSuffix(got, `sqlq queue create 'a; reboot' b`) {
		t.Error(got)
	}
}
