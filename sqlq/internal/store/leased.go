package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Leases are the messages that instances have in their names.
type Leases struct{ base }

// Lock locks those of the given leases that the instance still has, and returns them. A lease that is missing was
// taken back because the instance was thought dead; whatever its handler did, somebody else handles the message.
// Relies on the primary key.
func (s Leases) Lock(ctx context.Context, db DBTX, instance int32, leases []int64) ([]int64, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT lease FROM %s WHERE instance = $1 AND lease = ANY ($2::bigint[]) ORDER BY lease FOR UPDATE`, s.table("leased")),
		instance, leases)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int64])
}

// GiveBack puts leased messages of an instance back into their queue, with the attempts that they had before, and hands
// the channel to notify after the commit to then. Relies on the primary key of leased.
func (s Leases) GiveBack(b *pgx.Batch, queue string, instance int32, leases []int64, then func(channel string)) {
	b.Queue(fmt.Sprintf(`
		WITH taken AS (
			DELETE FROM %[1]s WHERE instance = $1 AND lease = ANY ($2::bigint[]) RETURNING *
		), stored AS (
			INSERT INTO %[2]s (id, sent_at, expires_at, attempt, type, headers, body)
			SELECT id, sent_at, expires_at, attempt, type, headers, body FROM taken ORDER BY seq
		)
		SELECT %[3]s`, s.table("leased"), s.ready(queue), s.asleep(queue)), instance, leases).QueryRow(scanChannel(then))
}

// Lease is one leased message.
type Lease struct {
	Instance int32
	ID       int64
	Queue    string
}

// Older appends the leases of instances that are older than an age to into. Relies on the primary key.
func (s Leases) Older(b *pgx.Batch, instances []int32, age time.Duration, into *[]Lease) {
	b.Queue(fmt.Sprintf(`
		SELECT instance, lease, queue FROM %s
		WHERE instance = ANY ($1::int[]) AND leased_at < clock_timestamp() - $2::bigint * interval '1 microsecond'`, s.table("leased")),
		instances, age.Microseconds()).Query(func(rows pgx.Rows) error {
		leases, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Lease])
		*into = append(*into, leases...)
		return err
	})
}

// BeginAlone counts the attempt that is about to begin of a leased message that may kill the process, in which it is the
// only such message that runs, and counts it in the header sqlq-crashes too: who finds that header on a recovered message
// knows how many processes died of it. It returns false when the instance has lost the lease. Relies on the primary key.
func (s Leases) BeginAlone(ctx context.Context, db DBTX, instance int32, lease int64) (mine bool, err error) {
	const crash = `'"sqlq-crashes":"' || coalesce(substring(headers::text FROM '.*[{,]\s*"sqlq-crashes":"([0-9]{1,5})"')::int, 0) + 1 || '"'`
	tag, err := db.Exec(ctx, fmt.Sprintf(`
		UPDATE %s SET attempt = least(attempt + 1, 32767), headers = %s WHERE instance = $1 AND lease = $2`,
		s.table("leased"), withHeaders("headers", crash)), instance, lease)
	return tag.RowsAffected() == 1, err
}

// EndAlone takes back what BeginAlone counted, of a message that had made so many attempts before. Relies on the primary key.
func (s Leases) EndAlone(ctx context.Context, db DBTX, instance int32, lease int64, attempts int) error {
	const crash = `'"sqlq-crashes":"' || greatest(coalesce(substring(headers::text FROM '.*"sqlq-crashes":"([0-9]{1,5})"')::int, 0) - 1, 0) || '"'`
	_, err := db.Exec(ctx, fmt.Sprintf(`
		UPDATE %s SET attempt = least($3::int, 32767), headers = %s WHERE instance = $1 AND lease = $2`,
		s.table("leased"), withHeaders("headers", crash)), instance, lease, attempts)
	return err
}

// Recovered is what was put back into a queue.
type Recovered struct {
	Queue   string
	N       int
	More    bool   // there may be more; with an N of 0 somebody has the queue's table for long, or it was only looked
	Channel string // to notify after the commit; "": no receiver of the queue sleeps
}

// Recover puts leased messages whose instance has ended, by crash or in order, or never was, back into their queues, in
// order: those of one queue, or, where only is "", of each, up to so many rows and bytes, but one at least. With 0 rows it only
// looks which queues have any. The header sqlq-crashes says that the message may be the one that killed the process; the
// attempt that was running counts if the message ran alone (BeginAlone), because its neighbours could not help it. Rows that
// somebody else recovers are passed over. It is done as the owner of the schema: whoever finds an instance dead may have no
// right to its queue. It reads all of leased.
func (s Leases) Recover(ctx context.Context, db DBTX, only string, rows int, bytes int64) ([]Recovered, error) {
	found, err := db.Query(ctx, fmt.Sprintf(`
		SELECT queue, recovered, more, coalesce(channel, '') FROM %s(nullif($1::text, ''), $2::bigint, $3::bigint)`, s.table("recover_leased")),
		only, rows, bytes)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(found, pgx.RowToStructByPos[Recovered])
}

// Fetch moves ready messages that where says into the leased table in the name of an instance and appends them to into, in
// order; then those that it left in the queue for the sake of the bounds. Once it is committed the messages are the instance's
// until it settles them or dies; then its heirs know which messages it had in hand. Rows that others hold are passed over. Bodies
// of messages under suspicion are left behind. Relies on the queue's primary key.
func (s Leases) Fetch(b *pgx.Batch, queue string, instance int32, where Where, bounds Bounds, into *[]Message) {
	picked, args := s.picked(queue, sized, where, bounds.Inline, bounds.Body, bounds.Total, instance, queue)
	sql := fmt.Sprintf(`
		WITH picked AS MATERIALIZED (%[3]s), `+fewer+`, taken AS (
			DELETE FROM %[1]s q USING few WHERE q.seq = few.seq RETURNING q.*
		), m AS (
			INSERT INTO %[2]s (instance, queue, seq, id, sent_at, expires_at, attempt, type, headers, body)
			SELECT $6::int, $7::text, seq, id, sent_at, expires_at, attempt, type, headers, body FROM taken ORDER BY seq
			RETURNING *
		)
		(SELECT m.lease, `+fetched+`
			CASE WHEN octet_length(m.body) <= $3 AND coalesce(m.headers::text, '') !~ '[{,]\s*"sqlq-crashes"\s*:' THEN m.body END, false
		FROM m ORDER BY m.lease)
		UNION ALL
		(SELECT 0, `+stay+` WHERE p.seq NOT IN (SELECT seq FROM few) ORDER BY p.seq)`,
		s.ready(queue), s.table("leased"), picked)
	b.Queue(sql, args...).Query(func(rows pgx.Rows) error {
		var m Message
		return scanMessages(rows, &m, into, &m.Lease, &m.Stays)
	})
}

// Add moves held messages that are still being handled into the leased table, in the name of an instance, with the
// attempts that have ended. leases gets the lease of each seq. Relies on the queue's primary key.
func (s Leases) Add(b *pgx.Batch, queue string, instance int32, seqs []int64, attempts []int, leases map[int64]int64) {
	small := make([]int16, len(attempts))
	for i, a := range attempts {
		small[i] = smallint(a)
	}
	b.Queue(fmt.Sprintf(`
		WITH %s
		INSERT INTO %s (instance, queue, seq, id, sent_at, expires_at, attempt, type, headers, body)
		SELECT $3::int, $4::text, t.seq, t.id, t.sent_at, t.expires_at, a.attempt, t.type, t.headers, t.body
		FROM taken t JOIN unnest($1::bigint[], $2::smallint[]) a (seq, attempt) ON a.seq = t.seq
		ORDER BY t.seq
		RETURNING seq, lease`, s.taken(From{Queue: queue}), s.table("leased")),
		seqs, small, instance, queue).Query(func(rows pgx.Rows) error {
		defer rows.Close()
		for rows.Next() {
			var seq, lease int64
			if err := rows.Scan(&seq, &lease); err != nil {
				return err
			}
			leases[seq] = lease
		}
		return rows.Err()
	})
}
