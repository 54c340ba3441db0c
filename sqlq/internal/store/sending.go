package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Sending stores messages in queues.
type Sending struct {
	base

	made  sync.Map     // queue → *inserts
	nMade atomic.Int32 // how many, about
}

// Outgoing is a message to be stored.
type Outgoing struct {
	ID      [16]byte
	Type    string
	Headers []byte // JSON object of strings; nil: none
	Body    []byte
	Delay   time.Duration // before it is ready, from the database's now
	DueAt   time.Time     // instead of Delay; zero: Delay counts
	TTL     time.Duration // after which it is not handled any more; 0: never
}

// Deferred says whether the message goes to the delayed ones.
func (o *Outgoing) Deferred() bool { return o.Delay > 0 || !o.DueAt.IsZero() }

func (o *Outgoing) headers() *string { return textOrNil(o.Headers) }

// inserts are the statements that store messages in one queue. They are made once: to put them together takes longer
// than to store a message in company. Of maxInserts queues at most: queues may come and go.
type inserts struct {
	one, many string
}

const maxInserts = 1_000

func (s *Sending) inserts(queue string) *inserts {
	if made, ok := s.made.Load(queue); ok {
		return made.(*inserts)
	}
	if s.nMade.Add(1) > maxInserts {
		s.made.Clear()
		s.nMade.Store(1)
	}
	made, _ := s.made.LoadOrStore(queue, &inserts{
		one: fmt.Sprintf(`
		WITH stored AS (
			INSERT INTO %s (id, expires_at, type, headers, body)
			VALUES ($1::uuid, clock_timestamp() + $2::bigint * interval '1 microsecond', $3, $4::json, $5::bytea)
		)
		SELECT %s`, s.ready(queue), s.asleep(queue)),
		many: fmt.Sprintf(`
		WITH stored AS (
			INSERT INTO %s (id, expires_at, type, headers, body)
			SELECT m.id, clock_timestamp() + m.ttl * interval '1 microsecond', m.type, m.headers::json, m.body
			FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::bytea[])
				WITH ORDINALITY AS m (id, ttl, type, headers, body, n)
			ORDER BY m.n
		)
		SELECT %s`, s.ready(queue), s.asleep(queue)),
	})
	return made.(*inserts)
}

// Insert stores one message in a queue and returns the channel to notify after the commit; "" when no receiver of the
// queue sleeps. Locks nothing.
func (s *Sending) Insert(ctx context.Context, db DBTX, queue string, m Outgoing) (channel string, err error) {
	var c *string
	err = db.QueryRow(ctx, s.inserts(queue).one, uuidText(m.ID), micros(m.TTL), m.Type, m.headers(), m.Body).Scan(&c)
	return deref(c), err
}

// InsertMany stores messages in one queue, in order, and returns the channel to notify after the commit; "" when no
// receiver of the queue sleeps. Locks nothing.
func (s *Sending) InsertMany(ctx context.Context, db DBTX, queue string, ms []Outgoing) (channel string, err error) {
	var c *string
	err = db.QueryRow(ctx, s.inserts(queue).many, columnsOf(ms).padded()...).Scan(&c)
	return deref(c), err
}

// InsertOne is Insert in the caller's transaction. With notify it wakes sleepers as part of that transaction. It passes
// single values only, which every driver can.
func (s *Sending) InsertOne(ctx context.Context, db Querier, queue string, m Outgoing, notify bool) error {
	var woken int
	return db.QueryRow(ctx, fmt.Sprintf(`
		WITH stored AS (
			INSERT INTO %s (id, expires_at, type, headers, body)
			VALUES ($1::uuid, clock_timestamp() + $2::bigint * interval '1 microsecond', $3, $4::json, $5::bytea)
		)
		SELECT count(CASE WHEN channel IS NOT NULL AND $6::boolean THEN pg_notify(channel, '')::text END)
		FROM (SELECT %s) AS probe (channel)`, s.ready(queue), s.asleep(queue)),
		uuidText(m.ID), micros(m.TTL), m.Type, m.headers(), m.Body, notify).Scan(&woken)
}

// Querier is the little of a transaction that sending in it needs; database/sql can give it too.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// QueueInsertMany is InsertMany as part of a round trip; then gets the channel to notify after the commit.
func (s *Sending) QueueInsertMany(b *pgx.Batch, queue string, ms []Outgoing, then func(channel string)) {
	b.Queue(s.inserts(queue).many, columnsOf(ms).padded()...).QueryRow(scanChannel(then))
}

// columns are messages turned on their side, for unnest.
type columns struct {
	ids     []pgtype.UUID // not [][16]byte, which pgx encodes only for a type that it has asked the server for
	ttls    []*int64
	types   []string
	headers []*string
	bodies  [][]byte
}

func columnsOf(ms []Outgoing) columns {
	c := columns{
		ids:     make([]pgtype.UUID, len(ms)),
		ttls:    make([]*int64, len(ms)),
		types:   make([]string, len(ms)),
		headers: make([]*string, len(ms)),
		bodies:  make([][]byte, len(ms)),
	}
	for i := range ms {
		c.ids[i], c.ttls[i], c.types[i] = pgtype.UUID{Bytes: ms[i].ID, Valid: true}, micros(ms[i].TTL), ms[i].Type
		c.headers[i], c.bodies[i] = ms[i].headers(), ms[i].Body
	}
	return c
}

// padded returns the columns in the order of unnest's parameters. A column of nulls only is left out as a whole: unnest
// pads what is shorter with nulls.
func (c columns) padded() []any {
	if !slices.ContainsFunc(c.ttls, func(ttl *int64) bool { return ttl != nil }) {
		c.ttls = nil
	}
	if !slices.ContainsFunc(c.headers, func(h *string) bool { return h != nil }) {
		c.headers = nil
	}
	return []any{c.ids, c.ttls, c.types, c.headers, c.bodies}
}

// Publish stores events in every queue that is subscribed to them at this moment and hands each queue's channel to
// notify after the commit to then; "" when no receiver of it sleeps. An event without subscribers is stored nowhere. stored gets the
// number of copies of all of them together; nil: it is not asked for.
func (s *Sending) Publish(b *pgx.Batch, ms []Outgoing, then func(channel string), stored func(copies int)) {
	c := columnsOf(ms)
	b.Queue(fmt.Sprintf(`
		SELECT coalesce(sum(copies), 0)::bigint, string_agg(channel, ' ') FROM %s($1::uuid[], $2::text[], $3::text[], $4::bytea[],
			(SELECT array_agg(u.ttl * interval '1 microsecond' ORDER BY u.n) FROM unnest($5::bigint[]) WITH ORDINALITY u (ttl, n)))`,
		s.table("publish_batch")),
		c.ids, c.types, c.headers, c.bodies, c.ttls).QueryRow(scanPublished(then, stored))
}

// scanPublished hands on what became of events: the number of copies, and the channels with blanks in between.
func scanPublished(then func(channel string), stored func(copies int)) func(pgx.Row) error {
	return func(row pgx.Row) error {
		var copies int
		var channels *string
		if err := row.Scan(&copies, &channels); err != nil {
			return err
		}
		for channel := range strings.FieldsSeq(deref(channels)) {
			then(channel)
		}
		if stored != nil {
			stored(copies)
		}
		return nil
	}
}

// PublishOne is Publish for a single event in the caller's transaction, and returns the number of copies. With notify it wakes
// sleepers as part of that transaction. It passes single values only, which every driver can.
func (s *Sending) PublishOne(ctx context.Context, db Querier, m Outgoing, notify bool) (copies int, err error) {
	var woken int
	err = db.QueryRow(ctx, fmt.Sprintf(`
		SELECT count(CASE WHEN channel IS NOT NULL AND $6::boolean THEN pg_notify(channel, '')::text END), coalesce(sum(copies), 0)::bigint
		FROM %s(ARRAY[$1::uuid], ARRAY[$2::text], ARRAY[$3::text], ARRAY[$4::bytea], ARRAY[$5::bigint * interval '1 microsecond'])`,
		s.table("publish_batch")),
		uuidText(m.ID), m.Type, m.headers(), m.Body, micros(m.TTL), notify).Scan(&woken, &copies)
	return copies, err
}

// Refusing returns the first of some queues that does not exist, or that the role may not send to; "" if there is none.
func (s *Sending) Refusing(ctx context.Context, db DBTX, queues []string) (queue string, err error) {
	err = db.QueryRow(ctx, `
		SELECT coalesce((
			SELECT u.q FROM unnest($1::text[]) WITH ORDINALITY u (q, n)
			WHERE has_any_column_privilege(to_regclass(format('%I.%I', $2::text, 'q_' || u.q)), 'INSERT') IS NOT TRUE
			ORDER BY u.n LIMIT 1), '')`, queues, s.name).Scan(&queue)
	return queue, err
}

// NotifyIn wakes the receivers that listen on the channels when the caller's transaction commits. It passes a single value only, which
// every driver can.
func (s *Sending) NotifyIn(ctx context.Context, db Querier, channels []string) error {
	var woken int
	return db.QueryRow(ctx, `SELECT count(pg_notify(c, '')::text) FROM unnest(string_to_array($1::text, ' ')) c`, strings.Join(channels, " ")).Scan(&woken)
}
