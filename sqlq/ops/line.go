package ops

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// AppendLine appends a message to b as a line of JSON that Import reads, the line end included. The object has the members
//
//	id, type, headers (an object of strings; a string, which Import refuses, where they cannot be read), sent_at, expires_at (null: never), attempt (attempts already made),
//	due_at, why, error (of a delayed message only),
//	body (JSON), or body_encoding "base64" and body as such a string
//
// A body comes back byte for byte: it stands in the line as it is if it is JSON without white space between its parts, so
// that a program that parses the line and writes it again leaves it unchanged; everything else is base64.
func AppendLine(b []byte, m Message) ([]byte, error) {
	headers := m.Headers
	switch {
	case headers == nil:
		headers = json.RawMessage(`{}`)
	case mayNestDeep(headers) || !json.Valid(headers):
		headers, _ = json.Marshal(string(headers))
	}
	out := bytes.NewBuffer(b)
	encode := json.NewEncoder(out)
	encode.SetEscapeHTML(false)
	err := encode.Encode(struct {
		ID        string          `json:"id"`
		Type      string          `json:"type"`
		Headers   json.RawMessage `json:"headers"`
		SentAt    time.Time       `json:"sent_at"`
		ExpiresAt *time.Time      `json:"expires_at"`
		Attempt   int             `json:"attempt"`
		DueAt     *time.Time      `json:"due_at,omitempty"`
		Why       string          `json:"why,omitempty"`
		Error     string          `json:"error,omitempty"`
	}{m.ID, m.Type, headers, *inUTC(&m.SentAt), inUTC(m.ExpiresAt), m.Attempt, inUTC(m.DueAt), m.Why, m.Error})
	if err != nil {
		return b, fmt.Errorf("write message %s: %w", m.ID, err)
	}
	out.Truncate(out.Len() - len("}\n"))
	if verbatim(m.Body) {
		out.WriteString(`,"body":`)
		out.Write(m.Body)
		out.WriteString("}\n")
	} else {
		out.WriteString(`,"body_encoding":"base64","body":"` + base64.StdEncoding.EncodeToString(m.Body) + "\"}\n")
	}
	return out.Bytes(), nil
}

// verbatim reports whether a body can stand in a line as it is.
func verbatim(body []byte) bool {
	if !utf8.Valid(body) || !json.Valid(body) || mayNestDeep(body) {
		return false
	}
	var compact bytes.Buffer
	return json.Compact(&compact, body) == nil && bytes.Equal(compact.Bytes(), body)
}

// mayNestDeep reports whether JSON may be nested deeper than encoding/json reads: PostgreSQL takes more.
func mayNestDeep(text []byte) bool {
	return bytes.Count(text, []byte("["))+bytes.Count(text, []byte("{")) >= maxNesting
}

// maxNesting is a little less deep than encoding/json reads.
const maxNesting = 9000

// inUTC returns a time as JSON can say it: its years are from 1 to 9999, what lies beyond is the last second or the first.
func inUTC(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	switch {
	case u.Year() > 9999:
		u = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	case u.Year() < 1:
		u = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return &u
}

// messageType is what a message type looks like, as the database has it too.
var messageType = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/:-]{0,199}$`)

// parseLine reads a line that AppendLine wrote, or one of an export of failed messages: those start again at attempt 0, and
// without their time to live where it has passed. An id and a time may be missing; members that it does not know are passed over.
func parseLine(line []byte) (query.Imported, error) {
	var l struct {
		ID           *string         `json:"id"`
		Type         string          `json:"type"`
		Headers      json.RawMessage `json:"headers"`
		SentAt       *time.Time      `json:"sent_at"`
		ExpiresAt    *time.Time      `json:"expires_at"`
		Attempt      int             `json:"attempt"`
		DueAt        *time.Time      `json:"due_at"`
		Why          string          `json:"why"`
		Error        string          `json:"error"`
		Body         json.RawMessage `json:"body"`
		BodyEncoding string          `json:"body_encoding"`
		FailedAt     *time.Time      `json:"failed_at"`
	}
	m := query.Imported{}
	if !utf8.Valid(line) {
		return m, errors.New("it is not UTF-8")
	}
	if err := json.Unmarshal(line, &l); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) && wrong.Field != "" {
			return m, fmt.Errorf("%s cannot be a %s", wrong.Field, wrong.Value)
		}
		return m, fmt.Errorf("it is not a JSON object: %w", err)
	}
	m = query.Imported{Type: l.Type, SentAt: l.SentAt, ExpiresAt: l.ExpiresAt, Attempt: l.Attempt, DueAt: l.DueAt, Why: l.Why, Error: l.Error}
	if l.ID != nil {
		id, err := parseID(*l.ID)
		if err != nil {
			return m, fmt.Errorf("id %w", err)
		}
		m.ID = id
	}
	if !messageType.MatchString(l.Type) {
		return m, fmt.Errorf("type %q is not one: a message type has 1 to 200 ASCII letters, digits and . _ / : -", l.Type)
	}
	var err error
	if m.Headers, err = parseHeaders(l.Headers, l.SentAt != nil); err != nil {
		return m, err
	}
	if m.Body, err = parseBody(l.Body, l.BodyEncoding); err != nil {
		return m, err
	}
	for name, t := range map[string]*time.Time{"sent_at": l.SentAt, "expires_at": l.ExpiresAt, "due_at": l.DueAt} {
		if t != nil && (t.UTC().Year() < 1 || t.UTC().Year() > 9999) {
			return m, fmt.Errorf("%s is out of range", name)
		}
	}
	if l.FailedAt != nil {
		m.Attempt, m.DueAt, m.Why, m.Error = 0, nil, "", ""
		if m.ExpiresAt != nil && m.ExpiresAt.Before(time.Now()) {
			m.ExpiresAt = nil
		}
	}
	if m.Attempt < 0 || m.Attempt > math.MaxInt16 {
		return m, fmt.Errorf("attempt %d is out of range", m.Attempt)
	}
	if m.DueAt == nil {
		m.Why, m.Error = "", ""
	} else if m.Why == "" {
		m.Why = "delay"
	} else if m.Why != "delay" && m.Why != "retry" {
		return m, fmt.Errorf("why is %q: it is delay or retry", m.Why)
	}
	if bytes.IndexByte([]byte(m.Error), 0) >= 0 {
		return m, errors.New("error has a NUL character")
	}
	return m, nil
}

// Limits of the headers of a line: those of the sender's are package sqlq's, and the text is that of the queue's table.
const (
	maxHeaders     = 100
	maxHeaderBytes = 64 << 10
	maxOwnBytes    = 8 << 10
	maxHeaderText  = 512 << 10
)

// bookkeeping are the headers in which the library notes what became of a message, and what it writes into them.
var bookkeeping = map[string]*regexp.Regexp{
	"sqlq-crashes":         regexp.MustCompile(`^[0-9]{1,5}$`),
	"sqlq-replays":         regexp.MustCompile(`^[0-9]{1,9}$`),
	"sqlq-first-failed-at": regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,15}Z$`),
}

// parseHeaders returns headers as they stand in the line; nil where there are none. The library's bookkeeping belongs to a
// message that was sent before: without a time of sending it is left out.
func parseHeaders(text json.RawMessage, sent bool) ([]byte, error) {
	if len(text) == 0 || string(text) == "null" {
		return nil, nil
	}
	if len(text) > maxHeaderText {
		return nil, fmt.Errorf("headers have %d bytes, the limit is %d", len(text), maxHeaderText)
	}
	var headers map[string]*string
	if err := json.Unmarshal(text, &headers); err != nil {
		return nil, errors.New("headers are not an object of strings")
	}
	n, size, own, dropped := 0, 0, 0, false
	for name, value := range headers {
		if value == nil {
			return nil, fmt.Errorf("header %q is not a string", name)
		}
		if !strings.HasPrefix(name, "sqlq-") {
			n, size = n+1, size+len(name)+len(*value)
			continue
		}
		own += len(name) + len(*value)
		if form := bookkeeping[name]; form != nil {
			_, err := time.Parse(time.RFC3339, *value)
			if !form.MatchString(*value) || name == "sqlq-first-failed-at" && (err != nil || strings.HasPrefix(*value, "0000")) {
				return nil, fmt.Errorf("header %q is %.100q: the library does not write that", name, *value)
			}
			if !sent {
				delete(headers, name)
				dropped = true
			}
		}
	}
	if n > maxHeaders || size > maxHeaderBytes || own > maxOwnBytes {
		return nil, fmt.Errorf("there are %d headers of %d bytes and the library's of %d, the limits are %d, %d and %d", n, size, own, maxHeaders, maxHeaderBytes, maxOwnBytes)
	}
	if len(headers) == 0 {
		return nil, nil
	}
	if dropped {
		return json.Marshal(headers)
	}
	return bytes.Clone(text), nil
}

func parseBody(text json.RawMessage, encoding string) ([]byte, error) {
	body := []byte(text)
	switch {
	case len(text) == 0:
		return nil, errors.New("body is missing; an empty one is null")
	case encoding == "base64":
		var encoded string
		if err := json.Unmarshal(text, &encoded); err != nil {
			return nil, errors.New("body is not a string of base64")
		}
		decoded, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return nil, errors.New("body is not base64")
		}
		body = append([]byte{}, decoded...)
	case encoding != "":
		return nil, fmt.Errorf("body_encoding %q is unknown: it is base64, or missing", encoding)
	}
	if len(body) > MaxBody {
		return nil, fmt.Errorf("the body has more than %d bytes, the most that a message carries", MaxBody)
	}
	return body, nil
}
