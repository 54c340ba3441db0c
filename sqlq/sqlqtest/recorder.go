package sqlqtest

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// The recorder remembers every message when it is first stored, in the transaction that stores it: what was rolled back was
// never sent. It consists of triggers in the test's database, so it sees what any Client, process or SQL function sends. Events
// also go to a queue of its own, because those without subscribers are not stored anywhere else.

// recorderQueue is subscribed to the recorded events. It is always empty.
const recorderQueue = "sqlqtest"

// recorderSQL creates the recorder. A message is identified by its id and the time it was sent, which do not change on its way
// through the tables.
func recorderSQL(schema string) string {
	return strings.NewReplacer("$SCHEMA", pgx.Identifier{schema}.Sanitize(), "$QUEUE", recorderQueue).Replace(`
CREATE SCHEMA sqlqtest;
CREATE TABLE sqlqtest.sent (
    seq     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id      uuid NOT NULL,
    sent_at timestamptz NOT NULL,
    queue   text NOT NULL,
    type    text NOT NULL,
    headers json,
    body    bytea NOT NULL,
    due_at  timestamptz,
    expires_at timestamptz,
    UNIQUE (id, sent_at, queue)
);
CREATE FUNCTION sqlqtest.record() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = sqlqtest, pg_temp
AS $$
BEGIN
    INSERT INTO sent (id, sent_at, queue, type, headers, body, expires_at)
    VALUES (NEW.id, NEW.sent_at, TG_ARGV[0], NEW.type, NEW.headers, NEW.body, NEW.expires_at)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE FUNCTION sqlqtest.record_delayed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = sqlqtest, pg_temp
AS $$
BEGIN
    INSERT INTO sent (id, sent_at, queue, type, headers, body, expires_at, due_at)
    VALUES (NEW.id, NEW.sent_at, NEW.queue, NEW.type, NEW.headers, NEW.body, NEW.expires_at, NEW.due_at)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE FUNCTION sqlqtest.record_queue() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = sqlqtest, pg_temp
AS $$
BEGIN
    -- BEFORE, because the recorder's own queue keeps nothing: the function returns null.
    EXECUTE format('CREATE TRIGGER sqlqtest_record %s INSERT ON %I.%I FOR EACH ROW EXECUTE FUNCTION sqlqtest.record(%L)',
        CASE WHEN NEW.name = '$QUEUE' THEN 'BEFORE' ELSE 'AFTER' END, TG_TABLE_SCHEMA, 'q_' || NEW.name, NEW.name);
    RETURN NULL;
END $$;
CREATE TRIGGER sqlqtest_record AFTER INSERT ON $SCHEMA.queue FOR EACH ROW EXECUTE FUNCTION sqlqtest.record_queue();
CREATE TRIGGER sqlqtest_record AFTER INSERT ON $SCHEMA.delayed FOR EACH ROW
    WHEN (NEW.why = 'delay') EXECUTE FUNCTION sqlqtest.record_delayed();
CREATE TRIGGER sqlqtest_keep_none BEFORE INSERT ON $SCHEMA.delayed FOR EACH ROW
    WHEN (NEW.queue = '$QUEUE') EXECUTE FUNCTION sqlqtest.record_delayed();
SELECT $SCHEMA.create_queue('$QUEUE');`)
}

func installRecorder(ctx context.Context, url, schema string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, recorderSQL(schema)); err != nil {
		return fmt.Errorf("create the recorder: %w", err)
	}
	return nil
}

// recorded is a message as the recorder stored it.
type recorded struct {
	id        [16]byte
	queue     string // for an event, the recorder's own
	kind      string // its type
	headers   []byte
	body      []byte
	delayUS   *int64 // from when it was sent until it is due, in microseconds; nil if it is not delayed
	expiresUS *int64 // likewise, until it expires; nil if it never does
}

// recordedOf returns the recorded events or commands of a type in the order in which they were stored; "" means every type. It
// leaves out the copies that an event's subscribers have, and the later queues of a command that an operator has moved.
func (h *Harness) recordedOf(ctx context.Context, kind string, events bool) ([]recorded, error) {
	rows, err := h.own.Query(ctx, `
		SELECT s.id, s.queue, s.type, s.headers::text, s.body,
			(extract(epoch FROM s.due_at - s.sent_at) * 1000000)::bigint, (extract(epoch FROM s.expires_at - s.sent_at) * 1000000)::bigint
		FROM sqlqtest.sent s
		WHERE ($1::text = '' OR s.type = $1::text) AND (s.queue = $2::text) = $3::boolean AND ($3::boolean OR NOT EXISTS (
			SELECT FROM sqlqtest.sent o WHERE o.id = s.id AND (o.queue = $2::text OR o.sent_at = s.sent_at AND o.seq < s.seq)))
		ORDER BY s.seq`, kind, recorderQueue, events)
	if err != nil {
		return nil, fmt.Errorf("read what was sent: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r recorded, err error) {
		err = row.Scan(&r.id, &r.queue, &r.kind, &r.headers, &r.body, &r.delayUS, &r.expiresUS)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("read what was sent: %w", err)
	}
	return all, nil
}

// record makes the recorder record events of these types that are published after it returns.
func (h *Harness) record(ctx context.Context, types ...string) error {
	var fresh []string
	for _, kind := range types {
		if _, known := h.watched.Load(kind); !known {
			fresh = append(fresh, kind)
		}
	}
	if fresh == nil {
		return nil
	}
	if err := h.store.Subscriptions.Add(ctx, h.own, recorderQueue, fresh); err != nil {
		return fmt.Errorf("record the events %q: %w", fresh, err)
	}
	for _, kind := range fresh {
		h.watched.Store(kind, true)
	}
	return nil
}

// recordSubscribed makes it record the events that any queue is subscribed to.
func (h *Harness) recordSubscribed(ctx context.Context) error {
	subscriptions, err := h.store.Subscriptions.List(ctx, h.own, "", "")
	if err != nil {
		return fmt.Errorf("read the subscriptions: %w", err)
	}
	var types []string
	for _, s := range subscriptions {
		types = append(types, s.Type)
	}
	return h.record(ctx, types...)
}
