package cli

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// editable writes a message as a text to edit: a line for each header, an empty line, the body.
func editable(m ops.FailedMessage) string {
	var b strings.Builder
	comment := func(format string, args ...any) {
		b.WriteString(strings.TrimRight("# "+term.OneLine(fmt.Sprintf(format, args...)), " ") + "\n")
	}
	comment("Failed message %d of queue %s: %s", m.Number, m.Queue, m.Type)
	comment("%s", m.Error)
	comment("")
	comment("Headers stand here, NAME: VALUE, a value in quotes being a JSON string. The body begins below the first empty line.")
	comment("Lines with # before it do not count. Leave the text as it is, or empty, to change nothing.")
	if !bodyIsJSON(m.Body) {
		comment("The body is in base64, because it is no JSON.")
	}
	own, _, readable := ops.SplitHeaders(m.Headers)
	if !readable {
		comment("The headers cannot be read. They stay as they are unless you write others: %s", term.Cut(term.OneLine(string(m.Headers)), shownBefore))
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		comment("%s: %s (the library's own, it stays)", headerName(name), headerText(own[name]))
	}
	return b.String() + textOf(m)
}

// textOf writes the headers that can be edited and the body.
func textOf(m ops.FailedMessage) string {
	var b strings.Builder
	_, others, _ := ops.SplitHeaders(m.Headers)
	for _, name := range slices.Sorted(maps.Keys(others)) {
		fmt.Fprintf(&b, "%s: %s\n", headerName(name), headerText(others[name]))
	}
	return b.String() + "\n" + bodyText(m)
}

// bodyText writes the body so that it can be edited.
func bodyText(m ops.FailedMessage) string {
	if bodyIsJSON(m.Body) {
		return string(escaped(laidOut(m.Body))) + "\n"
	}
	var b strings.Builder
	for line := range slices.Chunk([]byte(base64.StdEncoding.EncodeToString(m.Body)), 76) {
		b.WriteString(string(line) + "\n")
	}
	return b.String()
}

func bodyIsJSON(b []byte) bool { return json.Valid(b) && utf8.Valid(b) }

// headerName writes a name so that it reads back: as it is, or, unless it is ASCII letters, digits, dots, hyphens and underscores, as a
// JSON string.
func headerName(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	quoted, err := json.Marshal(name)
	if err != nil {
		return name
	}
	return string(escaped(quoted))
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

// headerText writes a value so that it stands on one line and reads back: as it is, or as a JSON string.
func headerText(value string) string {
	if value == term.OneLine(value) && !strings.HasPrefix(value, `"`) {
		return value
	}
	quoted, err := json.Marshal(value)
	if err != nil {
		return value
	}
	return string(escaped(quoted))
}

// cutHeader splits a text into the name and the value of a header. A name in quotes is a JSON string, and may contain the separator.
func cutHeader(text, separator string) (name, value string, found bool) {
	if !strings.HasPrefix(text, `"`) {
		return strings.Cut(text, separator)
	}
	in := json.NewDecoder(strings.NewReader(text))
	if in.Decode(&name) != nil {
		return "", "", false
	}
	value, found = strings.CutPrefix(strings.TrimLeft(text[in.InputOffset():], " "), separator)
	return name, value, found
}

// readEdited reads what became of an editable text.
func readEdited(m ops.FailedMessage, text string) (ops.Edit, error) {
	var e ops.Edit
	rest := strings.ReplaceAll(text, "\r\n", "\n")
	headers := map[string]string{}
	for number := 1; ; number++ {
		line, below, more := strings.Cut(rest, "\n")
		if strings.TrimSpace(line) == "" {
			if !more {
				return e, fmt.Errorf("line %d: the body is missing; it stands below an empty line", number)
			}
			rest = below
			break
		}
		rest = below
		if strings.HasPrefix(line, "#") {
			if !more {
				rest = ""
			}
			continue
		}
		name, value, found := cutHeader(line, ":")
		if !found {
			return e, fmt.Errorf("line %d: %s is no header; write NAME: VALUE, and an empty line before the body", number, term.Cut(term.OneLine(line), 60))
		}
		if value = strings.TrimSpace(value); !strings.HasPrefix(line, `"`) {
			name = strings.TrimSpace(name)
		}
		if strings.HasPrefix(value, `"`) {
			if err := json.Unmarshal([]byte(value), &value); err != nil {
				return e, fmt.Errorf("line %d: the value of header %q begins with a quote, but is no JSON string: %w", number, name, err)
			}
		}
		if _, twice := headers[name]; twice {
			return e, fmt.Errorf("line %d: header %q stands there twice", number, name)
		}
		headers[name] = value
	}
	if _, _, readable := ops.SplitHeaders(m.Headers); readable || len(headers) > 0 {
		e.Headers = headers
	}
	if bodyIsJSON(m.Body) {
		if strings.TrimSpace(rest) == strings.TrimSpace(bodyText(m)) {
			return e, nil // its escapes are those of the text, not of the body
		}
		e.Body = []byte(rest)
		return e, nil
	}
	body, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(rest), ""))
	if err != nil {
		return e, fmt.Errorf("the body is not base64: %w", err)
	}
	e.Body = body
	return e, nil
}
