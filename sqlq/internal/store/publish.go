package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Publish stores events in every queue that is subscribed to them at this moment and hands each queue's channel to
// notify after the commit to then; "" when no receiver of it sleeps. An event without subscribers is stored nowhere.
func (s *Sending) Publish(b *pgx.Batch, ms []Outgoing, then func(channel string)) {
	c := columnsOf(ms)
	b.Queue(fmt.Sprintf(`
		SELECT channel FROM %s($1::uuid[], $2::text[], $3::text[], $4::bytea[],
			(SELECT array_agg(u.ttl * interval '1 microsecond' ORDER BY u.n) FROM unnest($5::bigint[]) WITH ORDINALITY u (ttl, n)))`,
		s.table("publish_batch")),
		c.ids, c.types, c.headers, c.bodies, c.ttls).Query(func(rows pgx.Rows) error {
		channels, err := pgx.CollectRows(rows, pgx.RowTo[*string])
		for _, channel := range channels {
			then(deref(channel))
		}
		return err
	})
}

// PublishOne is Publish for a single event in the caller's transaction. With notify it wakes sleepers as part of that
// transaction. It passes single values only, which every driver can.
func (s *Sending) PublishOne(ctx context.Context, db Querier, m Outgoing, notify bool) error {
	var woken int
	return db.QueryRow(ctx, fmt.Sprintf(`
		SELECT count(CASE WHEN channel IS NOT NULL AND $6::boolean THEN pg_notify(channel, '')::text END)
		FROM %s(ARRAY[$1::uuid], ARRAY[$2::text], ARRAY[$3::text], ARRAY[$4::bytea], ARRAY[$5::bigint * interval '1 microsecond'])`,
		s.table("publish_batch")),
		uuidText(m.ID), m.Type, m.headers(), m.Body, micros(m.TTL), notify).Scan(&woken)
}
