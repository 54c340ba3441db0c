package ops

import (
	"bytes"
	"encoding/json"
	"time"
	"unicode/utf8"
)

// What operators look at is JSON here, once, for the command line's -o json and for pages and tools: a type writes itself with
// MarshalJSON where a value has a form of its own, else by the tags of its fields. Times are UTC by RFC 3339, durations seconds, lists
// that are empty [], and what is not known null. This JSON is for reading elsewhere: no type here decodes it.

// encode returns v as JSON in which <, > and & stand as they are. An encoder that escapes them does so with what it is given, too.
func encode(v any) ([]byte, error) {
	var text bytes.Buffer
	out := json.NewEncoder(&text)
	out.SetEscapeHTML(false)
	if err := out.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n")), nil
}

// bodyJSON is a message body: JSON as it is where it is some, else base64, which BodyEncoding then says.
type bodyJSON struct {
	Body         any    `json:"body"`
	BodyEncoding string `json:"body_encoding,omitempty"`
}

func bodyAsJSON(body []byte) bodyJSON {
	if embeddable(body) {
		return bodyJSON{Body: json.RawMessage(body)}
	}
	return bodyJSON{Body: body, BodyEncoding: "base64"}
}

// headersAsJSON returns the headers of a message, an empty object where there are none; a string where parsers may not read them.
func headersAsJSON(headers json.RawMessage) json.RawMessage {
	switch {
	case headers == nil:
		return json.RawMessage(`{}`)
	case embeddable(headers):
		return headers
	}
	text, _ := json.Marshal(string(headers)) // a string can always be written
	return text
}

// embeddableNesting is how deep JSON may be nested that becomes part of ours: parsers have limits, of 1,000 levels or more.
const embeddableNesting = 900

// embeddable reports whether a text can be part of our JSON as it is.
func embeddable(text []byte) bool {
	return nestingDepth(text) <= embeddableNesting && utf8.Valid(text) && json.Valid(text)
}

// nestingDepth returns how deep a JSON text is nested; of any other text, some number.
func nestingDepth(text []byte) (deepest int) {
	depth, inString := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			inString = !inString
		case inString && c == '\\':
			i++
		case inString:
		case c == '[' || c == '{':
			depth++
			deepest = max(deepest, depth)
		case c == ']' || c == '}':
			depth--
		}
	}
	return deepest
}

// JSON has the years that RFC 3339 has. A time outside of them, such as an infinite one, becomes their beginning or end.
var (
	firstTime = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	lastTime  = time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)
)

// timeAsJSON returns a time in UTC that JSON can say.
func timeAsJSON(t time.Time) time.Time {
	switch t = t.UTC(); {
	case t.Before(firstTime):
		return firstTime
	case t.After(lastTime):
		return lastTime
	}
	return t
}

// optionalTime is timeAsJSON of a time that may be missing.
func optionalTime(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := timeAsJSON(*t)
	return &u
}

// optionalSeconds returns a duration in seconds, if there is one.
func optionalSeconds(d *time.Duration) *float64 {
	if d == nil {
		return nil
	}
	seconds := d.Seconds()
	return &seconds
}

// optionalText returns a text, nil for an empty one.
func optionalText(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// listed returns a list that is [] in JSON where it is empty.
func listed[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
