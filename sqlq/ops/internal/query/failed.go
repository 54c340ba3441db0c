package query

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Failed is a failed message. The lists leave Headers, Body, Chain and Stack out, which can be large.
type Failed struct {
	Seq           int64
	ID            string
	Status        string // failed or archived
	Queue         string
	Endpoint      string
	Host          string
	Type          string
	Attempts      int
	Replays       int
	SentAt        time.Time
	ExpiresAt     *time.Time // nil: never
	FirstFailedAt time.Time
	FailedAt      time.Time
	ArchivedAt    *time.Time // nil: it is not
	ErrorType     string
	Message       string
	Fingerprint   string
	Headers       json.RawMessage // nil: none
	Body          []byte
	Chain         []string
	Stack         *string // nil: it was not a panic
}

const failedColumns = `seq, id::text, status, queue, endpoint, host, type, attempts, replays, sent_at, expires_at,
	first_failed_at, failed_at, archived_at, error_type, message, fingerprint`

// ListFailed returns up to limit failed messages that a filter chooses, those with the highest numbers first. It is for
// messages that are named: NextFailed goes through many. Locks nothing. Relies on the primary key and the index (id).
func (s failedQueries) ListFailed(ctx context.Context, db DBTX, f Filter, limit int) ([]Failed, error) {
	indexed, scanned, args := s.where(filteredError, f, limit)
	where := indexed + ` AND ` + scanned
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT %s, NULL::text, NULL::bytea, NULL::text[], NULL::text
		FROM %s WHERE %s ORDER BY seq DESC LIMIT $1::bigint`, failedColumns, s.table("error"), where), args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Failed])
}

// FailedKey is a place in the order of the failed messages.
type FailedKey struct {
	FailedAt time.Time
	Seq      int64
}

// FailedScan is how NextFailed goes through the error table.
type FailedScan struct {
	Oldest bool       // from the oldest on; else from the newest
	After  *FailedKey // from there on; nil: from the beginning
	UpTo   int64      // no higher numbers; 0: all
	Look   int        // maximum number of messages to look at, of those that the indexes find
	Limit  int        // maximum number of them to return
	Sizes  bool       // return how long bodies are, too
}

// FailedChunk is what NextFailed found.
type FailedChunk struct {
	Failed []Failed
	Sizes  []int      // of their bodies, in bytes
	Looked int        // how many messages it looked at; not known of the last chunk
	Next   *FailedKey // where the next chunk begins; nil: this was the last
}

// NextFailed looks at the next messages in the order of their failure, and returns those that a filter chooses. However
// rare they are, it ends after o.Look messages that fit the indexed part of the filter, so a whole scan is many short
// statements and none holds vacuum back. Locks nothing. Relies on the indexes on the error table, which all have the order.
func (s failedQueries) NextFailed(ctx context.Context, db DBTX, f Filter, o FailedScan) (FailedChunk, error) {
	direction, beyond := `DESC`, `<`
	if o.Oldest {
		direction, beyond = `ASC`, `>`
	}
	columns, size := columnsFor(f), `0`
	if o.Sizes {
		size, columns = `size`, columns+`, octet_length(body) AS size`
	}
	indexed, scanned, args := s.where(filteredOrdered, f, o.Look, o.Limit)
	if o.After != nil {
		args = append(args, o.After.FailedAt, o.After.Seq)
		indexed += fmt.Sprintf(` AND (failed_at, seq) %s ($%d::timestamptz, $%d::bigint)`, beyond, len(args)-1, len(args))
	}
	if o.UpTo > 0 {
		args = append(args, o.UpTo)
		indexed += fmt.Sprintf(` AND seq <= $%d::bigint`, len(args))
	}
	// The last message looked at is returned whether it fits or not: it says where to go on.
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT fits, n, %[1]s, %[2]s FROM (
			SELECT coalesce(%[3]s, false) AS fits, c.* FROM (
				SELECT *, row_number() OVER (ORDER BY failed_at %[4]s, seq %[4]s) AS n
				FROM (%[5]s) e ORDER BY failed_at %[4]s, seq %[4]s LIMIT $1::bigint
			) c OFFSET 0
		) m WHERE fits OR n = $1::bigint LIMIT $2::bigint`,
		size, failedColumns, scanned, direction, s.inOrder(f, columns, indexed, direction, `$1::bigint`)), args...)
	if err != nil {
		return FailedChunk{}, err
	}
	var chunk FailedChunk
	returned := 0
	var fits bool
	var m Failed
	var bytes int
	_, err = pgx.ForEachRow(rows, append([]any{&fits, &chunk.Looked, &bytes}, m.scanned()...), func() error {
		returned++
		chunk.Next = &FailedKey{m.FailedAt, m.Seq}
		if fits {
			chunk.Failed, chunk.Sizes = append(chunk.Failed, m), append(chunk.Sizes, bytes)
		}
		return nil
	})
	if returned < o.Limit && chunk.Looked < o.Look {
		chunk.Next = nil
	}
	return chunk, err
}

// columnsFor returns the columns that lists and a filter read. Headers and bodies, which a viewer may not read, only if the filter does.
func columnsFor(f Filter) string {
	columns := strings.Replace(failedColumns, `id::text`, `id`, 1)
	if f.Body != "" {
		columns += `, body`
	}
	if len(f.Headers) > 0 {
		columns += `, headers`
	}
	return columns
}

// inOrder selects the first messages of the error table in the order of their failure, by the status and the queues of a filter
// and a condition for which filteredOrdered was asked. Where several of them are wanted each is read on its own, because only
// so the indexes have the order.
func (s failedQueries) inOrder(f Filter, columns, indexed, direction, limit string) string {
	var each []string
	ofOne := func(and string) {
		each = append(each, fmt.Sprintf(`(SELECT %[1]s FROM %[2]s WHERE %[3]s%[4]s ORDER BY failed_at %[5]s, seq %[5]s LIMIT %[6]s)`,
			columns, s.table("error"), indexed, and, direction, limit))
	}
	statuses := []string{``}
	if f.Status == "" {
		statuses = []string{` AND status = 'failed'`, ` AND status = 'archived'`}
	}
	for _, status := range statuses {
		switch {
		case f.Queues == nil:
			ofOne(status)
		case len(f.Queues) == 0:
			ofOne(status + ` AND false`)
		}
		for _, queue := range f.Queues {
			ofOne(status + ` AND queue = ` + quote(queue))
		}
	}
	return strings.Join(each, ` UNION ALL `)
}

// scanned returns where the columns of failedColumns go.
func (f *Failed) scanned() []any {
	return []any{&f.Seq, &f.ID, &f.Status, &f.Queue, &f.Endpoint, &f.Host, &f.Type, &f.Attempts, &f.Replays, &f.SentAt, &f.ExpiresAt,
		&f.FirstFailedAt, &f.FailedAt, &f.ArchivedAt, &f.ErrorType, &f.Message, &f.Fingerprint}
}

// ReadFailed returns the failed messages of those numbers that are there, in any order, with all their fields. Locks
// nothing. Relies on the primary key.
func (s failedQueries) ReadFailed(ctx context.Context, db DBTX, seqs ...int64) ([]Failed, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT %s, headers::text, body, chain, stack FROM %s WHERE seq = ANY ($1::bigint[])`, failedColumns, s.table("error")), seqs)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Failed])
}
