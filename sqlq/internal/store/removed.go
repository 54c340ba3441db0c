package store

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Removed are messages that were removed from their queue before they are handled: their receiver has the only copies.
type Removed struct{ base }

// Fetch removes ready messages that where says and appends them to into, in order; then those that it left in the queue
// for the sake of the bounds. Once it is committed whoever asked has the only copies. Rows that others hold are passed over.
// Relies on the queue's primary key.
func (s Removed) Fetch(b *pgx.Batch, queue string, where Where, bounds Bounds, into *[]Message) {
	picked, args := s.picked(queue, sized, where, math.MaxInt32, bounds.Body, bounds.Total)
	sql := fmt.Sprintf(`
		WITH picked AS MATERIALIZED (%[2]s), `+fewer+`, m AS (
			DELETE FROM %[1]s q USING few WHERE q.seq = few.seq AND NOT few.large RETURNING q.*
		)
		(SELECT CASE WHEN m.expires_at < 'infinity' THEN greatest(m.expires_at, 'epoch') END, `+fetched+fetchedBody+`, false FROM m ORDER BY m.seq)
		UNION ALL
		(SELECT NULL, `+stay+` WHERE p.large OR p.seq NOT IN (SELECT seq FROM few) ORDER BY p.seq)`, s.ready(queue), picked)
	b.Queue(sql, args...).Query(func(rows pgx.Rows) error {
		var m Message
		return scanMessages(rows, &m, into, &m.Expires, &m.Stays)
	})
}

// removed are messages that the database has no more, as parameters.
type removed struct {
	columns
	keys     []int64
	sentAt   []time.Time
	expires  []*time.Time
	attempts []int16
}

func removedOf(ms []*Message) removed {
	c := removed{columns: columns{ids: make([]pgtype.UUID, len(ms))}}
	for i, m := range ms {
		c.ids[i] = pgtype.UUID{Bytes: m.ID, Valid: true}
		c.types, c.headers, c.bodies = append(c.types, m.Type), append(c.headers, textOrNil(m.Headers)), append(c.bodies, m.Body)
		c.keys, c.sentAt, c.expires = append(c.keys, m.Seq), append(c.sentAt, m.SentAt), append(c.expires, m.Expires)
		c.attempts = append(c.attempts, smallint(m.Attempt))
	}
	return c
}

// Fail stores messages that were removed in the error table, each with the failure of the same place. Bodies go to
// the server anew. Locks nothing.
func (s Removed) Fail(b *pgx.Batch, queue string, ms []*Message, failures []Failure) error {
	c := removedOf(ms)
	failures = slices.Clone(failures)
	for i := range failures { // a seq may come twice, of a queue that was dropped and made again
		c.keys[i], failures[i].Key = int64(i), int64(i)
	}
	return s.fail(b, takenRemoved(5), queue, failures, c.keys, c.ids, c.sentAt, c.expires, c.types, c.headers, c.bodies)
}

// takenRemoved is the CTE "taken" of messages that were removed, which are parameters from $n on.
func takenRemoved(n int) string {
	return fmt.Sprintf(`taken AS (
			SELECT r.key, r.id, r.sent_at, r.expires_at, r.type, r.headers::json AS headers, r.body
			FROM unnest($%d::bigint[], $%d::uuid[], $%d::timestamptz[], $%d::timestamptz[], $%d::text[], $%d::text[], $%d::bytea[])
				r (key, id, sent_at, expires_at, type, headers, body)
		)`, n, n+1, n+2, n+3, n+4, n+5, n+6)
}

// Delay stores messages that were removed among the delayed, each with the retry of the same place. When one of them
// is due soon then gets the channel on which to tell the movers after the commit. Locks nothing.
func (s Removed) Delay(b *pgx.Batch, queue string, ms []*Message, retries []Retry, then func(channel string)) {
	c := removedOf(ms)
	retries = slices.Clone(retries)
	for i := range retries {
		c.keys[i], retries[i].Key = int64(i), int64(i)
	}
	s.delay(b, takenRemoved(8), queue, retries, then, c.keys, c.ids, c.sentAt, c.expires, c.types, c.headers, c.bodies)
}

// PutBack stores messages that were removed in their queue again, in order, with the attempts that they had before, and
// hands the channel to notify after the commit to then. Locks nothing.
func (s Removed) PutBack(b *pgx.Batch, queue string, ms []*Message, then func(channel string)) {
	c := removedOf(ms)
	b.Queue(fmt.Sprintf(`
		WITH stored AS (
			INSERT INTO %s (id, sent_at, expires_at, attempt, type, headers, body)
			SELECT r.id, r.sent_at, r.expires_at, r.attempt, r.type, r.headers::json, r.body
			FROM unnest($1::bigint[], $2::uuid[], $3::timestamptz[], $4::timestamptz[], $5::smallint[], $6::text[], $7::text[], $8::bytea[])
				r (key, id, sent_at, expires_at, attempt, type, headers, body)
			ORDER BY r.key
		)
		SELECT %s`, s.ready(queue), s.asleep(queue)),
		c.keys, c.ids, c.sentAt, c.expires, c.attempts, c.types, c.headers, c.bodies).QueryRow(scanChannel(then))
}
