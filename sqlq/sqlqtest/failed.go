package sqlqtest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// Failure is a message in the error table.
type Failure[T sqlq.Message] struct {
	// Record is the message as it was sent; Queue is where it failed, Delay and ExpiresIn are unknown. Message is zero if the
	// body cannot be decoded, which may be why it failed.
	Record[T]

	Error    string // of the last attempt
	Attempts int    // since it was sent or last replayed
	Stack    string // of a panic, otherwise ""
	Number   int64  // that identifies it in package ops and on the command line
}

// Failed returns the messages of type T, commands or events, that are in the error table, in the order in which they failed.
// Archived ones are left out.
func Failed[T sqlq.Message](t TB, h *Harness) []Failure[T] {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), lookWithin)
	defer cancel()
	var all []Failure[T]
	err := h.eachFailed(ctx, typeName[T](t), func(m ops.FailedMessage) error {
		f := Failure[T]{Record: Record[T]{Body: m.Body, Queue: m.Queue}, Error: m.Error, Attempts: m.Attempts, Stack: m.Stack, Number: m.Number}
		r := record{kind: m.Type, Record: Record[sqlq.Message]{Body: m.Body}}
		var err error
		if r.ID, err = sqlq.ParseID(m.ID); err != nil {
			return err
		}
		if r.setHeaders(m.Headers) == nil { // otherwise they may be why it failed
			f.Headers, f.CorrelationID, f.ConversationID = r.Headers, r.CorrelationID, r.ConversationID
		}
		f.ID = r.ID
		if decode(h.Config, r, &f.Message) != nil {
			f.Message = *new(T)
		}
		all = append(all, f)
		return nil
	})
	if err != nil {
		fatalf(t, "sqlqtest: %v", err)
	}
	return all
}

func (h *Harness) eachFailed(ctx context.Context, kind string, each func(ops.FailedMessage) error) error {
	filter := ops.Filter{Type: kind, Order: ops.Oldest}
	if err := ops.New(h.own, h.store.Name()).Failed.Each(ctx, filter, ops.EachOptions{Whole: true}, each); err != nil {
		return fmt.Errorf("read the error table: %w", err)
	}
	return nil
}

// ExpectFailed fails the test unless the messages of type T in the error table are exactly those wanted, in any order; without
// any wanted, unless there is none. The test continues. It compares messages as ExpectSent does.
func ExpectFailed[T sqlq.Message](t TB, h *Harness, want ...T) {
	t.Helper()
	all := Failed[T](t, h)
	got := make([]Record[T], len(all))
	for i, f := range all {
		got[i] = f.Record
	}
	expect(t, h, "in the error table", got, want)
}

// ExpectNoneFailed fails the test if any message is in the error table. The test continues.
func ExpectNoneFailed(t TB, h *Harness) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), lookWithin)
	defer cancel()
	if failed := h.failures(ctx); failed != nil {
		t.Errorf("sqlqtest: messages have failed%s", listed(failed))
	}
}

func (h *Harness) failures(ctx context.Context) (lines []string) {
	err := h.eachFailed(ctx, "", func(m ops.FailedMessage) error {
		line := fmt.Sprintf("%s in queue %q, message %s, after %s: %s\n%s", m.Type, m.Queue, m.ID, attemptsOf(m.Attempts), m.Error, indented(m.Body))
		if m.Stack != "" {
			line += "\n" + panicked(m.Stack)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		lines = append(lines, err.Error())
	}
	return lines
}

// panicked returns the part of a stack that shows where the handler panicked.
func panicked(stack string) string {
	const most = 8
	lines := strings.Split(strings.TrimSpace(stack), "\n")
	if i := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "panic(") }); i >= 0 {
		lines = lines[min(i+2, len(lines)):] // its place in the runtime is left out too
	}
	return strings.Join(lines[:min(most, len(lines))], "\n")
}
