package ops

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/sqlq/sqlq/sqlq/internal/store"
	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// Status of a message in the error table.
type Status string

const (
	StatusFailed   Status = "failed"   // it waits for an operator
	StatusArchived Status = "archived" // it is kept, and left out of replays
	StatusAny      Status = "any"      // in a filter: both
)

// Order of a list.
type Order string

const (
	Newest Order = "newest" // first
	Oldest Order = "oldest" // first
)

// Filter chooses messages: those that match every field that is set. Zero fields match everything. It means the same for failed
// messages, delayed messages and those in a queue, except that only failed messages have a Group and a Status, and that a message
// waiting in a queue has no Error.
//
// Names, Queue, Type, Group, Status, Since, Until are found by an index, however many messages there are. Error, Headers,
// Body and Attempts look at each message that those leave.
type Filter struct {
	Names    []string          // by number or id: any of them
	Queue    string            // which they are of
	Type     string            // the message type
	Group    string            // of failures: FailedMessage.Group
	Error    string            // what the text of the error contains; between slashes: a regular expression (of PostgreSQL) that it matches
	Since    Moment            // failed, due or sent then or later, according to what is chosen from
	Until    Moment            // failed, due or sent before then
	Headers  map[string]string // all of these, with these values
	Body     string            // an SQL/JSON path: a predicate that holds, or a path that finds something. Bodies that are no JSON do not fit.
	Attempts Range             // how many were made
	Status   Status            // of failed messages; default: StatusFailed
	Order    Order             // default: Newest for failed messages, Oldest for others
	Limit    int               // maximum number, in that order; 0: no limit

	// All must be set for a change that is meant for every message: changes refuse a filter that chooses all of them by accident.
	All bool
}

// FilterError is returned for a filter that cannot be parsed. Nothing was done.
type FilterError struct {
	Field string // which field of the filter; "": the caller knows
	Text  string // as it was written
	At    int    // the byte of Text at which it goes wrong
	Why   string // what is wrong there
}

// Error says what happened, where, and what to do about it.
func (e *FilterError) Error() string {
	field := e.Field
	if field != "" {
		field += " "
	}
	runes := len([]rune(e.Text[:min(e.At, len(e.Text))]))
	return fmt.Sprintf("%s%q: %s\n  %s\n  %s^", field, e.Text, e.Why, e.Text, strings.Repeat(" ", runes))
}

// ChoosesAll reports whether the filter matches every message. Its Status does not count: most messages have the same.
func (f Filter) ChoosesAll() bool {
	return len(f.Names) == 0 && f.Queue == "" && f.Type == "" && f.Group == "" && f.Error == "" && f.Since == (Moment{}) && f.Until == (Moment{}) &&
		len(f.Headers) == 0 && f.Body == "" && f.Attempts == (Range{})
}

// chosen translates the filter for queries on failed messages.
func (f Filter) chosen() (query.Filter, error) {
	switch f.Status {
	case "":
		f.Status = StatusFailed
	case StatusFailed, StatusArchived, StatusAny:
	default:
		return query.Filter{}, fmt.Errorf("status %q is unknown: it is %q, %q or %q", f.Status, StatusFailed, StatusArchived, StatusAny)
	}
	chosen, err := f.chosenOthers()
	if f.Status != StatusAny {
		chosen.Status = string(f.Status)
	}
	chosen.Fingerprint = f.Group
	return chosen, err
}

// choose translates the filter for queries on failed messages, after the database has checked its regular expression and jsonpath.
func (o *core) choose(ctx context.Context, f Filter) (query.Filter, error) {
	chosen, err := f.chosen()
	if err != nil {
		return chosen, err
	}
	if err := o.try(ctx, chosen); err != nil {
		return chosen, err
	}
	seen, err := o.store.SeenQueues(ctx, o.pool)
	if err != nil {
		return chosen, fmt.Errorf("read which queues may be seen: %w", err)
	}
	switch {
	case seen == nil:
	case f.Queue != "" && !slices.Contains(seen, f.Queue):
		chosen.Queues = []string{}
	case f.Queue == "" && len(seen) <= seenQueues:
		chosen.Queues = seen
	}
	return chosen, nil
}

// chooseReady translates the filter for queries on the messages of a queue, after the database has checked its jsonpath.
func (o *core) chooseReady(ctx context.Context, f Filter) (query.Filter, error) {
	chosen, err := f.chosenReady()
	if err != nil {
		return chosen, err
	}
	return chosen, o.try(ctx, chosen)
}

// seenQueues is the number of visible queues up to which each is searched on its own.
const seenQueues = 20

// chosenDelayed translates the filter for queries on delayed messages.
func (f Filter) chosenDelayed() (query.Filter, error) {
	if f.Group != "" || f.Status != "" {
		return query.Filter{}, errors.New("only failed messages have a group and a status")
	}
	return f.chosenOthers()
}

// chosenReady translates the filter for queries on the messages of a queue; which queue, the table says.
func (f Filter) chosenReady() (query.Filter, error) {
	if f.Error != "" {
		return query.Filter{}, errors.New("a message that waits in its queue has no error; those that failed are in the error table, those to be retried among the delayed")
	}
	if err := f.checkNames("ready"); err != nil {
		return query.Filter{}, err
	}
	f.Queue = ""
	return f.chosenDelayed()
}

func (f Filter) chosenOthers() (query.Filter, error) {
	if err := f.checkTexts(); err != nil {
		return query.Filter{}, err
	}
	chosen := query.Filter{Queue: f.Queue, Type: f.Type, Since: f.Since.stored(), Until: f.Until.stored(),
		MinAttempts: f.Attempts.Min, MaxAttempts: f.Attempts.Max, Body: f.Body}
	if pattern, found := strings.CutPrefix(f.Error, "/"); found {
		pattern, closed := strings.CutSuffix(pattern, "/")
		if !closed || pattern == "" {
			return chosen, &FilterError{Field: "error", Text: f.Error, At: len(f.Error), Why: "a regular expression stands between two slashes, such as /timed? ?out/"}
		}
		chosen.Pattern = pattern
	} else {
		chosen.Error = f.Error
	}
	for name, value := range f.Headers {
		chosen.Headers = append(chosen.Headers, [2]string{name, value})
	}
	switch f.Order {
	case "", Newest, Oldest:
	default:
		return chosen, fmt.Errorf("order %q is unknown: it is %q or %q", f.Order, Newest, Oldest)
	}
	for _, name := range f.Names {
		seq, id, err := parseName(name)
		if err != nil {
			return chosen, err
		}
		if id != "" {
			chosen.IDs = append(chosen.IDs, id)
		} else {
			chosen.Seqs = append(chosen.Seqs, seq)
		}
	}
	return chosen, nil
}

// checkTexts refuses texts that no message can have and that PostgreSQL would not take.
func (f Filter) checkTexts() error {
	check := func(field, text string) error {
		if at := strings.IndexByte(text, 0); at >= 0 {
			return &FilterError{Field: field, Text: text, At: at, Why: "no text has a NUL"}
		}
		for at, r := range text {
			if _, size := utf8.DecodeRuneInString(text[at:]); r == utf8.RuneError && size == 1 {
				return &FilterError{Field: field, Text: text, At: at, Why: "this is not UTF-8"}
			}
		}
		return nil
	}
	err := cmp.Or(check("queue", f.Queue), check("type", f.Type), check("group", f.Group), check("error", f.Error), check("body", f.Body))
	for name, value := range f.Headers {
		err = cmp.Or(err, check("header", name), check("header "+name, value))
	}
	return err
}

func (f Filter) limit() int {
	if f.Limit <= 0 {
		return math.MaxInt
	}
	return f.Limit
}

// try lets the database check the regular expression and the jsonpath of a filter, so that a mistake in them is reported before
// anything is done, with its position.
func (o *core) try(ctx context.Context, f query.Filter) error {
	for _, part := range []struct {
		field, text string
		read        func(context.Context, store.DBTX, string) error
	}{{"error", f.Pattern, o.store.TryPattern}, {"body", f.Body, o.store.TryPath}} {
		if part.text == "" {
			continue
		}
		err := part.read(ctx, o.pool, part.text)
		var pg *pgconn.PgError
		if !errors.As(err, &pg) || pg.Code[:2] != "22" && pg.Code[:2] != "42" {
			if err != nil {
				return fmt.Errorf("read the filter: %w", err)
			}
			continue
		}
		return &FilterError{Field: part.field, Text: part.text, At: placeIn(part.text, pg.Message), Why: pg.Message}
	}
	return nil
}

// placeIn returns the position of a mistake in a text, according to an error message that quotes it; the end of the text if the
// message quotes nothing.
func placeIn(text, message string) int {
	if _, quoted, found := strings.Cut(message, `at or near "`); found {
		if end := strings.LastIndexByte(quoted, '"'); end >= 0 {
			if at := strings.LastIndex(text, quoted[:end]); at >= 0 {
				return at
			}
		}
	}
	return len(text)
}

// checkNames refuses names that are neither a number nor an id; of says which messages are meant.
func (f Filter) checkNames(of string) error {
	for _, name := range f.Names {
		if _, _, err := parseName(name); err != nil {
			return fmt.Errorf("%q names no %s message: give its number or its id, which is a UUID", name, of)
		}
	}
	return nil
}

// parseName reads how an operator names a message: a number or an id, which is returned in its usual form.
func parseName(name string) (seq int64, id string, err error) {
	if seq, err := strconv.ParseInt(name, 10, 64); err == nil {
		return seq, "", nil
	}
	if id, err = parseID(name); err != nil {
		return 0, "", fmt.Errorf("%q names no failed message: give its number or its id, which is a UUID", name)
	}
	return 0, id, nil
}

// parseID returns a message id in its usual form.
func parseID(text string) (string, error) {
	var uuid pgtype.UUID
	if err := uuid.Scan(text); err != nil {
		return "", fmt.Errorf("%q is not a UUID, such as 0198c0de-7a00-7000-8000-000000000001", text)
	}
	return uuid.String(), nil
}
