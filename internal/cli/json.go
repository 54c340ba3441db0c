package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/sqlq/sqlq/internal/term"
)

// body is a message body in JSON output: as JSON where it is some, else in base64, which BodyEncoding then says.
type body struct {
	Body         any    `json:"body"`
	BodyEncoding string `json:"body_encoding,omitempty"`
}

func bodyOf(b []byte) body {
	if embeddable(b) {
		return body{Body: json.RawMessage(b)}
	}
	return body{Body: b, BodyEncoding: "base64"}
}

// headersOf returns headers for JSON output, where there is always something: an object, unless a message has what is
// none. Such as no reader could take apart are a string.
func headersOf(headers json.RawMessage) json.RawMessage {
	switch {
	case headers == nil:
		return json.RawMessage(`{}`)
	case embeddable(headers):
		return headers
	}
	text, _ := json.Marshal(string(headers)) // a string always can be
	return text
}

// maxNesting is how deep JSON may be nested that stands in our own: parsers have their limits, of 1,000 levels or more.
const maxNesting = 900

// embeddable reports whether a text can stand as JSON in a document of ours.
func embeddable(text []byte) bool {
	return nesting(text) <= maxNesting && utf8.Valid(text) && json.Valid(text)
}

// nesting returns how deep JSON is nested. Of other text it returns any number.
func nesting(text []byte) (deepest int) {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			i = stringEnd(text, i) - 1
		case '[', '{':
			depth++
			deepest = max(deepest, depth)
		case ']', '}':
			depth--
		}
	}
	return deepest
}

// stringEnd returns where the JSON string ends that begins at i.
func stringEnd(text []byte, i int) int {
	for i++; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

// Layout: JSON is laid out over lines down to a depth, and what is nested deeper stands on one line. The depth is at most
// maxLaidOut, and less where the blanks would make a text more than eight times as long, and a mebibyte.
const (
	maxLaidOut  = 24
	layoutTimes = 8
	layoutBytes = 1 << 20
)

// layoutDepth returns to which depth a JSON text is laid out; 0: not at all.
func layoutDepth(text []byte) int {
	var added [maxLaidOut + 1]int // bytes, by depth
	depth := 0
	line := func(of, at int) {
		if of > 0 && of <= maxLaidOut {
			added[of] += 2 + 2*at // with the blank behind a colon
		}
	}
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			i = stringEnd(text, i) - 1
		case '[', '{':
			depth++
			line(depth, depth)
		case ',':
			line(depth, depth)
		case ']', '}':
			line(depth, depth-1)
			depth--
		}
	}
	left := layoutTimes*len(text) + layoutBytes
	for d := 1; d <= maxLaidOut; d++ {
		if left -= added[d]; left < 0 {
			return d - 1
		}
	}
	return maxLaidOut
}

// laidOut lays valid JSON out over lines, as deep as layoutDepth says.
func laidOut(text []byte) []byte {
	deepest := layoutDepth(text)
	out := bytes.NewBuffer(make([]byte, 0, len(text)*3/2))
	depth := 0
	line := func(of, at int) {
		if of <= deepest {
			out.WriteByte('\n')
			for range at {
				out.WriteString("  ")
			}
		}
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case ' ', '\t', '\n', '\r':
		case '"':
			end := stringEnd(text, i)
			out.Write(text[i:end])
			i = end - 1
		case '[', '{':
			out.WriteByte(c)
			rest := bytes.TrimLeft(text[i+1:min(len(text), i+64)], " \t\n\r")
			if len(rest) > 0 && (rest[0] == ']' || rest[0] == '}') {
				out.WriteByte(rest[0])
				for i++; text[i] != rest[0]; i++ {
				}
				continue
			}
			depth++
			line(depth, depth)
		case ']', '}':
			line(depth, depth-1)
			depth--
			out.WriteByte(c)
		case ',':
			out.WriteByte(c)
			line(depth, depth)
		case ':':
			out.WriteByte(c)
			if depth <= deepest {
				out.WriteByte(' ')
			}
		default:
			out.WriteByte(c)
		}
	}
	return out.Bytes()
}

// pretty lays JSON out over several lines; other text stays as it is.
func pretty(text []byte) string {
	if !json.Valid(text) {
		return string(text)
	}
	return string(laidOut(text))
}

// escaped writes the characters that a terminal would obey as JSON does, \u009b. Outside of strings there are none.
func escaped(text []byte) []byte {
	if bytes.IndexFunc(text, term.Obeyed) < 0 {
		return text
	}
	out := make([]byte, 0, len(text)+len(text)/8)
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if term.Obeyed(r) {
			out = fmt.Appendf(out, `\u%04x`, r)
		} else {
			out = append(out, text[i:i+size]...)
		}
		i += size
	}
	return out
}

// jsonLine returns a value as JSON on one line, without its end, that can be shown on a terminal.
func jsonLine(v any) ([]byte, error) {
	var text bytes.Buffer
	out := json.NewEncoder(&text)
	out.SetEscapeHTML(false)
	if err := out.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n")), nil
}

// Times in JSON lie in the years that RFC 3339 has: what lies outside of them, infinite times included, is their end.
var (
	firstTime = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	lastTime  = time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)
)

// inUTC returns a time for JSON output.
func inUTC(t time.Time) time.Time {
	switch t = t.UTC(); {
	case t.Before(firstTime):
		return firstTime
	case t.After(lastTime):
		return lastTime
	}
	return t
}

// utc is inUTC of a time that there may not be.
func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := inUTC(*t)
	return &u
}
