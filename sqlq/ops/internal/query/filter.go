package query

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Filter chooses messages in the error table, among the delayed, or in a queue. Zero fields match everything; a message
// must match all others.
type Filter struct {
	Status       string // of the error table: failed or archived
	Queue        string
	Queues       []string // of the error table: one of these, beside what Queue says; nil: any
	Type         string
	Fingerprint  string
	Seqs         []int64      // those with these numbers
	IDs          []string     // or these ids
	Keys         []DelayedKey // of delayed messages: they lie here, as FindDelayed says; nil: anywhere
	Since, Until Moment       // by the table's own time

	// These look at each message that the others leave.
	MinAttempts *int
	MaxAttempts *int
	Error       string // what the text of the error contains
	Pattern     string // or a regular expression that it matches
	Headers     [][2]string
	Body        string // a jsonpath
}

// Moment is a point in time: absolute, or so long before now by the clock of the database. The zero value is none.
type Moment struct {
	At  time.Time
	Ago *time.Duration // negative: in the future
}

func (m Moment) isZero() bool { return m.At.IsZero() && m.Ago == nil }

// filtered is a table that a filter chooses from: the names of its columns. "" means that it has none, and that the
// filter must not ask for it.
type filtered struct {
	status, queue, fingerprint, time, attempts, err string

	statuses []string // where a filter says no status: all there are, for indexes that begin with it; nil: the caller says them
}

var (
	filteredOrdered = filtered{status: "status", queue: "queue", fingerprint: "fingerprint", time: "failed_at", attempts: "attempts", err: "message"}
	filteredError   = filtered{status: "status", queue: "queue", fingerprint: "fingerprint", time: "failed_at", attempts: "attempts", err: "message",
		statuses: []string{"failed", "archived"}}
	filteredDelayed = filtered{queue: "queue", time: "due_at", attempts: "attempt", err: "error"}
	filteredReady   = filtered{time: "sent_at", attempts: "attempt"}
)

// Scans reports whether the filter looks at messages that no index leads to.
func (f Filter) Scans() bool {
	return f.MinAttempts != nil || f.MaxAttempts != nil || f.Error != "" || f.Pattern != "" || len(f.Headers) > 0 || f.Body != ""
}

// where returns the filter as two conditions whose parameters follow args, and the parameters with args in front. The
// first can use indexes, and holds only what is asked for, so that the planner can choose among them: of the error table
// (status, failed_at, seq), (status, queue, failed_at, seq), (status, type, failed_at, seq), (status, fingerprint, failed_at,
// seq), (id) and the primary key. The second must look at every message that the first leaves. Of some it says null: they do
// not fit.
func (s base) where(t filtered, f Filter, args ...any) (indexed, scanned string, _ []any) {
	var conds, scans []string
	param := func(v any) int { args = append(args, v); return len(args) }
	equal := func(column, value string) {
		if value != "" {
			conds = append(conds, fmt.Sprintf(`%s = $%d::text`, column, param(value)))
		}
	}
	if f.Status == "" && t.statuses != nil {
		conds = append(conds, fmt.Sprintf(`%s IN ('%s')`, t.status, strings.Join(t.statuses, `', '`)))
	}
	equal(t.status, f.Status)
	if t.queue != "" {
		equal(t.queue, f.Queue)
	}
	if f.Queues != nil && t.statuses != nil {
		conds = append(conds, fmt.Sprintf(`queue = ANY ($%d::text[])`, param(f.Queues)))
	}
	equal("type", f.Type)
	equal(t.fingerprint, f.Fingerprint)
	if f.Seqs != nil || f.IDs != nil {
		conds = append(conds, fmt.Sprintf(`(seq = ANY ($%d::bigint[]) OR id = ANY ($%d::text[]::uuid[]))`, param(f.Seqs), param(f.IDs)))
	}
	moment := func(operator string, m Moment) {
		switch {
		case m.Ago != nil: // statement_timestamp() is stable, which an index wants
			conds = append(conds, fmt.Sprintf(`%s %s statement_timestamp() - $%d::bigint * interval '1 microsecond'`, t.time, operator, param(m.Ago.Microseconds())))
		case !m.isZero():
			conds = append(conds, fmt.Sprintf(`%s %s $%d::timestamptz`, t.time, operator, param(m.At)))
		}
	}
	moment(">=", f.Since)
	moment("<", f.Until)
	if f.MinAttempts != nil {
		scans = append(scans, fmt.Sprintf(`%s >= $%d::bigint`, t.attempts, param(*f.MinAttempts)))
	}
	if f.MaxAttempts != nil {
		scans = append(scans, fmt.Sprintf(`%s <= $%d::bigint`, t.attempts, param(*f.MaxAttempts)))
	}
	if f.Error != "" {
		scans = append(scans, fmt.Sprintf(`strpos(%s, $%d::text) > 0`, t.err, param(f.Error)))
	}
	if f.Pattern != "" {
		scans = append(scans, fmt.Sprintf(`%s ~ $%d::text`, t.err, param(f.Pattern)))
	}
	// In their order: one filter makes one text, which is prepared once.
	for _, h := range slices.SortedFunc(slices.Values(f.Headers), func(a, b [2]string) int { return cmp.Compare(a[0], b[0]) }) {
		scans = append(scans, fmt.Sprintf(`%s(headers, $%d::text) = $%d::text`, s.table("header_value"), param(h[0]), param(h[1])))
	}
	if f.Body != "" {
		// A predicate says true or false; of any other path it counts whether it finds something.
		json, n := s.table("body_json")+`(body)`, param(f.Body)
		scans = append(scans, fmt.Sprintf(`coalesce(%[1]s @@ $%[2]d::text::jsonpath, %[1]s @? $%[2]d::text::jsonpath)`, json, n))
	}
	return all(conds), all(scans), args
}

func all(conds []string) string {
	if conds == nil {
		return `true`
	}
	return strings.Join(conds, ` AND `)
}

// SeenQueues returns the queues whose failed messages the role may see; nil: those of all, but for some. Row security
// leaves the others out anyway, but only after it has looked at each message. Locks nothing.
func (s filterQueries) SeenQueues(ctx context.Context, db DBTX) (queues []string, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`
		SELECT CASE WHEN row_security_active(%s::regclass) AND NOT %s(NULL, 'SELECT') THEN %s('SELECT') END`,
		quote(s.table("error")), s.table("queue_allows"), s.table("queues_apart"))).Scan(&queues)
	return queues, err
}

// TryPattern has the database read a regular expression; an error with SQLSTATE 2201B says what is wrong with it.
func (s filterQueries) TryPattern(ctx context.Context, db DBTX, pattern string) error {
	_, err := db.Exec(ctx, `SELECT '' ~ $1::text`, pattern)
	return err
}

// TryPath has the database read a jsonpath; a syntax error of class 42 says what is wrong with it.
func (s filterQueries) TryPath(ctx context.Context, db DBTX, path string) error {
	_, err := db.Exec(ctx, `SELECT $1::text::jsonpath`, path)
	return err
}
