package sqlqtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/sqlq/sqlq/internal/linediff"
	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/internal/handmade"
)

// ExpectSent fails the test unless the commands of type T that were sent are exactly those wanted, in any order; without any
// wanted, unless none was sent. The test continues. Messages are equal if their bodies are, or if they are deeply equal after
// being encoded and decoded. With sqlq.Raw the commands of all types are compared, with their types and content types. The error shows
// the differences line by line, and what was sent instead or has failed.
func ExpectSent[T sqlq.Message](t TB, from Outbox, want ...T) {
	t.Helper()
	expect(t, from, "sent", Sent[T](t, from), want)
}

// ExpectPublished is ExpectSent for events.
func ExpectPublished[T sqlq.Message](t TB, from Outbox, want ...T) {
	t.Helper()
	expect(t, from, "published", Published[T](t, from), want)
}

// shown is a message in the form that is compared and shown.
type shown struct {
	body  []byte
	value any
	text  string // indented
	where string // message id and queue; "" for a wanted one
}

func (s shown) equals(o shown) bool {
	if _, raw := s.value.(sqlq.Raw); raw {
		return reflect.DeepEqual(s.value, o.value)
	}
	return bytes.Equal(s.body, o.body) || reflect.DeepEqual(s.value, o.value)
}

// expect compares got with want. done names their state: sent, published, …
func expect[T sqlq.Message](t TB, from Outbox, done string, got []Record[T], want []T) {
	t.Helper()
	config, name := from.config(), typeName[T](t)
	var is, wanted []shown
	for _, r := range got {
		where := fmt.Sprintf("message %v", r.ID)
		if r.Queue != "" {
			where += fmt.Sprintf(", queue %q", r.Queue)
		}
		if name == "" {
			where += ", type " + r.Message.MessageType()
		}
		is = append(is, shown{r.Body, r.Message, textOf(r.Body, r.Message), where})
	}
	for i, m := range want {
		body, contentType, err := handmade.Encode(config, m)
		var decoded T
		if err == nil {
			err = decode(config, record{kind: m.MessageType(), contentType: contentType, Record: Record[sqlq.Message]{Body: body}}, &decoded)
		}
		if err != nil {
			fatalf(t, "sqlqtest: wanted message %d of type %s cannot be encoded and decoded: %v", i+1, name, err)
		}
		wanted = append(wanted, shown{body, decoded, textOf(body, decoded), ""})
	}
	wanted, is = unmatched(wanted, is)
	if len(wanted)+len(is) == 0 {
		return
	}
	var text strings.Builder
	fmt.Fprintf(&text, "sqlqtest: %s: want %d %s, got %d", name, len(want), done, len(got))
	for _, pair := range pairs(&wanted, &is) {
		fmt.Fprintf(&text, "\ndifferent (%s; - want, + got):\n%s", pair[1].where, inset(linediff.Between(pair[0].text, pair[1].text)))
	}
	for i, m := range wanted {
		if fmt.Fprintf(&text, "\nnot %s:\n%s", done, inset(m.text)); i+1 == mostShown && len(wanted) > mostShown {
			fmt.Fprintf(&text, "\n… and %d more", len(wanted)-mostShown)
			break
		}
	}
	for i, m := range is {
		if fmt.Fprintf(&text, "\n%s, but not expected (%s):\n%s", done, m.where, inset(m.text)); i+1 == mostShown && len(is) > mostShown {
			fmt.Fprintf(&text, "\n… and %d more", len(is)-mostShown)
			break
		}
	}
	if len(wanted) > 0 {
		text.WriteString(elsewhere(from, name))
	}
	t.Errorf("%s", text.String())
}

// An error shows at most mostShown messages of one kind, and at most linesShown lines of each.
const mostShown, linesShown = 5, 60

// unmatched returns what is left after equal ones are paired off.
func unmatched(wanted, is []shown) (restWanted, restIs []shown) {
	restIs = slices.Clone(is)
	for _, w := range wanted {
		if i := slices.IndexFunc(restIs, w.equals); i >= 0 {
			restIs = slices.Delete(restIs, i, i+1)
		} else {
			restWanted = append(restWanted, w)
		}
	}
	return restWanted, restIs
}

// pairs takes out, for each wanted message, the one that differs from it in the fewest lines.
func pairs(wanted, is *[]shown) (found [][2]shown) {
	for len(*wanted) > 0 && len(*is) > 0 && len(found) < mostShown {
		w := (*wanted)[0]
		best, fewest := 0, -1
		for i, o := range *is {
			n := 0
			for line := range strings.Lines(linediff.Between(w.text, o.text)) {
				if line[0] == '-' || line[0] == '+' {
					n++
				}
			}
			if fewest < 0 || n < fewest {
				best, fewest = i, n
			}
		}
		found = append(found, [2]shown{w, (*is)[best]})
		*wanted, *is = (*wanted)[1:], slices.Delete(*is, best, best+1)
	}
	return found
}

// elsewhere lists what else is in an Outbox, to help find a missing message.
func elsewhere(from Outbox, but string) string {
	ctx, cancel := context.WithTimeout(context.Background(), lookWithin)
	defer cancel()
	counts := map[string]int{}
	for _, events := range []bool{false, true} {
		all, err := from.outgoing(ctx, "", events)
		if err != nil {
			return "\n" + err.Error()
		}
		for _, r := range all {
			counts[r.kind]++
		}
	}
	delete(counts, but)
	var text strings.Builder
	for i, kind := range slices.Sorted(maps.Keys(counts)) {
		text.WriteString(map[bool]string{true: "\nother types sent: ", false: ", "}[i == 0])
		fmt.Fprintf(&text, "%s (%d)", kind, counts[kind])
	}
	if failed := from.failures(ctx); failed != nil {
		text.WriteString("\nfailed messages" + listed(failed))
	}
	return text.String()
}

// listed lists failed messages, to follow a line that introduces them.
func listed(failed []string) string {
	text := ":"
	for i, line := range failed {
		if i == mostShown {
			return text + fmt.Sprintf("\n… and %d more", len(failed)-i)
		}
		text += "\n" + inset(line)
	}
	return text
}

// textOf returns a message as text: its body if that is JSON, else its Go value as JSON, or as fmt formats it.
func textOf(body []byte, value any) string {
	if json.Valid(body) {
		return indented(body)
	}
	if text, err := json.MarshalIndent(value, "", "  "); err == nil {
		return string(text)
	}
	return fmt.Sprintf("%+v", value)
}

// indented formats a body on several lines if it is JSON.
func indented(body []byte) string {
	var text bytes.Buffer
	if json.Indent(&text, body, "", "  ") == nil {
		return text.String()
	}
	return fmt.Sprintf("%q", body)
}

// inset indents a text and cuts it off if it is long.
func inset(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) > linesShown {
		lines = append(lines[:linesShown], "…")
	}
	return "    " + strings.Join(lines, "\n    ")
}
