package ops

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/sqlq/sqlq/sqlq"
)

// ErrFilterEmpty is returned by changes of failed messages whose filter chooses every failed message and does not set All.
var ErrFilterEmpty = errors.New("the filter chooses every failed message: name a queue, a type, a group or messages, or say that all are meant")

// ErrChanged is returned by Failed.Edit when the message has changed since it was read.
var ErrChanged = errors.New("somebody else has edited the message meanwhile; look at it and edit it again")

// ChangedSincePreviewError is returned by a change that is limited to the Snapshot of a preview, when it would change more messages
// than the preview saw. Nothing was done.
type ChangedSincePreviewError struct {
	Previewed int64 // messages that the preview saw
	Now       int64 // messages that would be changed now
}

// Error says what happened, where, and what to do about it.
func (e *ChangedSincePreviewError) Error() string {
	return fmt.Sprintf("the preview saw %s, now there are %d: nothing was done; look at them again", plural(e.Previewed, "message"), e.Now)
}

// NoQueueError is returned for a queue that does not exist. It is a sqlq.ErrNoQueue.
type NoQueueError struct {
	Queue  string   // that was named
	Schema string   // in which it was looked for
	Near   []string // existing queues with similar names, or all queues if they are few
}

// Error says what happened, where, and what to do about it.
func (e *NoQueueError) Error() string {
	text := fmt.Sprintf("queue %q does not exist in schema %q", e.Queue, e.Schema)
	switch len(e.Near) {
	case 0:
		return text + "; make it with: sqlq queue create " + shellWord(e.Queue) + inSchema(e.Schema)
	case 1:
		return text + fmt.Sprintf("; there is %q", e.Near[0])
	default:
		return text + "; there are " + quoted(e.Near)
	}
}

// Unwrap lets errors.Is find sqlq.ErrNoQueue.
func (e *NoQueueError) Unwrap() error { return sqlq.ErrNoQueue }

// inSchema is what a command that an error names needs for a schema that is not the default one.
func inSchema(schema string) string {
	if schema == "sqlq" {
		return ""
	}
	return " --schema " + shellWord(schema)
}

// shellWord quotes a word of a command line where a shell would not leave it as it is.
func shellWord(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-:/@%+,=", r)
	}
	if word != "" && strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0 {
		return word
	}
	if !strings.ContainsFunc(word, func(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Bidi_Control) }) {
		return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	// As bash and zsh have it, so that nothing stands there that a terminal would obey.
	var quoted strings.Builder
	for _, b := range []byte(word) {
		switch {
		case b == '\'' || b == '\\':
			quoted.WriteString(`\` + string(b))
		case b >= 0x20 && b < 0x7f:
			quoted.WriteByte(b)
		default:
			fmt.Fprintf(&quoted, `\x%02x`, b)
		}
	}
	return "$'" + quoted.String() + "'"
}

// NoFailedError is returned when some of the named failed messages cannot be changed, because they do not exist or have the wrong
// status. The others are changed all the same.
type NoFailedError struct {
	Missing  []string // not in the error table
	Archived []string // archived, which the filter does not choose
	Failed   []string // not archived, which Unarchive leaves alone
}

// Error says what happened, where, and what to do about it.
func (e *NoFailedError) Error() string {
	var parts []string
	if e.Missing != nil {
		parts = append(parts, "not in the error table (see: sqlq error ls --status any): "+strings.Join(e.Missing, ", "))
	}
	if e.Archived != nil {
		parts = append(parts, "archived, and left as it is: "+strings.Join(e.Archived, ", "))
	}
	if e.Failed != nil {
		parts = append(parts, "not archived, and left as it is: "+strings.Join(e.Failed, ", "))
	}
	return strings.Join(parts, "; ")
}

// QueueGoneError is returned by Replay when chosen messages belong to queues that no longer exist. They stay in the error table; the
// others were replayed.
type QueueGoneError struct {
	Queues []string // that do not exist
}

// Error says what happened, where, and what to do about it.
func (e *QueueGoneError) Error() string {
	words := ""
	for _, queue := range e.Queues {
		words += " " + shellWord(queue)
	}
	return fmt.Sprintf("the messages of %s stay in the error table, because there is no such queue any more; make it and replay again: sqlq queue create%s",
		quoted(e.Queues), words)
}

// InterruptedError is returned when a change that runs in batches stopped before its end: by Replay, Archive, Unarchive, Delete,
// Move, Purge, Cancel, Reschedule and Operations.Resume. What it has done stays done, and Operations.Resume does the rest, unless
// Err is ErrCancelled.
type InterruptedError struct {
	Operation int64  // its number, for Operations.Resume
	Kind      string // one of OperationKinds
	Done      int64  // messages that it has changed
	Wanted    *int64 // messages that it was to change; nil: too many to count
	Err       error  // why: the end of the context, a lost connection, ErrCancelled, …
}

// Error says what happened, where, and what to do about it.
func (e *InterruptedError) Error() string {
	text := fmt.Sprintf("%s stopped after %s", e.Kind, counted(e.Done, e.Wanted))
	if errors.Is(e.Err, ErrCancelled) {
		return text + fmt.Sprintf(": somebody has cancelled operation %d", e.Operation)
	}
	if !errors.Is(e.Err, context.Canceled) { // that is known
		text += ": " + e.Err.Error()
	}
	return text + fmt.Sprintf("\nGo on with: sqlq operation resume %d", e.Operation)
}

// Unwrap returns Err.
func (e *InterruptedError) Unwrap() error { return e.Err }

// ErrCancelled is why an operation stopped that was ended with Operations.Cancel. What it has done stays done.
var ErrCancelled = errors.New("somebody has cancelled it")

// NoOperationError is returned for an operation that does not exist.
type NoOperationError struct {
	ID int64 // that was named
}

// Error says what happened, where, and what to do about it.
func (e *NoOperationError) Error() string {
	return fmt.Sprintf("there is no operation %d; list them with: sqlq operation ls", e.ID)
}

// counted writes how many messages of how many have been changed.
func counted(done int64, wanted *int64) string {
	switch {
	case wanted != nil:
		return fmt.Sprintf("%d of %d messages", done, *wanted)
	case done == 1:
		return "1 message"
	}
	return fmt.Sprintf("%d messages", done)
}

// BodyError is returned for a message body that cannot be sent. Nothing was sent.
type BodyError struct {
	Line   int   // where the body begins; 0: it did not come from lines
	Number int   // which body it is, from 1; 0: there is one only
	Err    error // what is wrong with it
}

// Error says what happened, where, and what to do about it.
func (e *BodyError) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("line %d: %v", e.Line, e.Err)
	}
	if e.Number > 0 {
		return fmt.Sprintf("body %d: %v", e.Number, e.Err)
	}
	return e.Err.Error()
}

// Unwrap returns Err.
func (e *BodyError) Unwrap() error { return e.Err }

func quoted[T ~string](names []T) string {
	q := make([]string, len(names))
	for i, n := range names {
		q[i] = fmt.Sprintf("%q", n)
	}
	return strings.Join(q, ", ")
}

// noQueue turns the error that a missing table makes into a *NoQueueError, if it is the queue that is missing.
func (o *core) noQueue(ctx context.Context, queue string, err error) error {
	if sqlState(err) != undefinedTable && !errors.Is(err, pgx.ErrNoRows) { // no rows: of the registry
		return err
	}
	if exists, lookErr := o.store.QueueExists(ctx, o.pool, queue); lookErr != nil || exists {
		return err
	}
	return o.unknownQueue(ctx, queue)
}

// mustExist returns a *NoQueueError if a queue does not exist.
func (o *core) mustExist(ctx context.Context, queue string) error {
	exists, err := o.store.QueueExists(ctx, o.pool, queue)
	if err != nil {
		return fmt.Errorf("look for queue %q: %w", queue, err)
	}
	if !exists {
		return o.unknownQueue(ctx, queue)
	}
	return nil
}

// unknownQueue returns the *NoQueueError for a queue that does not exist.
func (o *core) unknownQueue(ctx context.Context, queue string) error {
	names, err := o.store.Queues.Names(ctx, o.pool)
	if err != nil {
		return fmt.Errorf("list queues: %w", err)
	}
	return &NoQueueError{Queue: queue, Schema: o.store.Name(), Near: near(queue, names)}
}

// near returns the names that a mistyped name may stand for: all of them if they are few.
func near(name string, names []string) []string {
	found := alike(name, names)
	if found == nil && len(names) <= 8 {
		return names
	}
	return found[:min(len(found), 8)]
}

// alike returns the names that look like a name.
func alike(name string, names []string) (found []string) {
	for _, n := range names {
		a, b := strings.ToLower(name), strings.ToLower(n)
		if strings.HasPrefix(b, a) || strings.HasPrefix(a, b) || distance(a, b) <= max(2, len(name)/3) {
			found = append(found, n)
		}
	}
	return found
}

// distance counts the characters to insert, delete or replace to turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			next := diagonal
			if a[i] != b[j] {
				next = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
