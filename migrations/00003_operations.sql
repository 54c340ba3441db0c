-- What operators need: an index for each way to choose failed messages, who changed what, queues that are paused, and how
-- much goes through them.

-- +goose Up

ALTER TABLE queue ADD paused_at timestamptz, ADD paused_by text;
COMMENT ON COLUMN queue.paused_at IS 'Since when no message of the queue is handed out; null: it is not paused. Sending goes on.';
COMMENT ON COLUMN queue.paused_by IS 'Who paused it, and why.';

CREATE TABLE traffic (
    queue      text PRIMARY KEY REFERENCES queue (name) ON DELETE CASCADE,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    arrived    bigint NOT NULL,
    before_at  timestamptz,
    before     bigint
) WITH (fillfactor = 50);
COMMENT ON TABLE traffic IS 'Two readings of how many messages have ever arrived in each queue, some seconds apart: the rate of arrival is the difference. The leading process takes them; a sequence counts, so that sending pays nothing.';
COMMENT ON COLUMN traffic.queue IS 'The queue.';
COMMENT ON COLUMN traffic.at IS 'When the later reading was taken.';
COMMENT ON COLUMN traffic.arrived IS 'The last value of the queue''s sequence then: each message that was sent, came back from the delayed, from a lease, or by a replay.';
COMMENT ON COLUMN traffic.before_at IS 'When the earlier reading was taken; null: there is one only.';
COMMENT ON COLUMN traffic.before IS 'The last value of the sequence at the earlier reading.';

ALTER TABLE instance
    ADD handled bigint NOT NULL DEFAULT 0, ADD failed bigint NOT NULL DEFAULT 0, ADD in_hand integer NOT NULL DEFAULT 0,
    ADD rate real NOT NULL DEFAULT 0, ADD slow integer NOT NULL DEFAULT 0, ADD slowest interval;
COMMENT ON COLUMN instance.handled IS 'Messages settled as complete since it began, as of the last heartbeat.';
COMMENT ON COLUMN instance.failed IS 'Messages settled as failed, for good or to be retried later, since it began, as of the last heartbeat.';
COMMENT ON COLUMN instance.in_hand IS 'Handlers running at the last heartbeat.';
COMMENT ON COLUMN instance.rate IS 'Messages a second settled as complete between the last two heartbeats.';
COMMENT ON COLUMN instance.slow IS 'Handlers that at the last heartbeat had been running for longer than the endpoint warns after (SlowAfter).';
COMMENT ON COLUMN instance.slowest IS 'For how long the oldest running handler had been running at the last heartbeat; null: none was.';

CREATE INDEX error_status_time ON error (status, failed_at, seq);
CREATE INDEX error_type ON error (type, failed_at, seq);

CREATE TABLE operation (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind       text NOT NULL,
    status     text NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'done', 'interrupted', 'cancelled')),
    filter     json NOT NULL DEFAULT '{}',
    queue      text,
    up_to      bigint,
    after      bigint NOT NULL DEFAULT 0,
    wanted     bigint,
    done       bigint NOT NULL DEFAULT 0,
    db_role    text NOT NULL DEFAULT session_user,
    os_user    text NOT NULL DEFAULT '',
    host       text NOT NULL DEFAULT '',
    reason     text NOT NULL DEFAULT '',
    began_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at   timestamptz,
    error      text
) WITH (fillfactor = 50);
COMMENT ON TABLE operation IS 'What operators changed: who, when, which messages, how many. One that was interrupted can be resumed from here.';
COMMENT ON COLUMN operation.id IS 'Number of the operation.';
COMMENT ON COLUMN operation.kind IS 'What was done: replay, archive, unarchive, delete, edit, purge, drop, move, import, pause, resume, cancel, reschedule, release, …';
COMMENT ON COLUMN operation.status IS 'running: also when its process died, see updated_at; done; interrupted: it can be resumed; cancelled: it is not to be.';
COMMENT ON COLUMN operation.filter IS 'Which messages, as the operator chose them.';
COMMENT ON COLUMN operation.queue IS 'The queue that the messages went to, or that was changed; null: each its own, or none.';
COMMENT ON COLUMN operation.up_to IS 'The last number that existed when it began: later messages are not part of it; null: it does not go by number.';
COMMENT ON COLUMN operation.after IS 'Everything up to this number has been done.';
COMMENT ON COLUMN operation.wanted IS 'How many messages it was to change, counted when it began or as its limit said; null: not known.';
COMMENT ON COLUMN operation.done IS 'How many it has changed, written in the same transaction as the change.';
COMMENT ON COLUMN operation.db_role IS 'The role that was logged in.';
COMMENT ON COLUMN operation.os_user IS 'The operator''s user name on the host, as the program says.';
COMMENT ON COLUMN operation.host IS 'The host on which the program ran, as it says.';
COMMENT ON COLUMN operation.reason IS 'Why, in the operator''s words.';
COMMENT ON COLUMN operation.began_at IS 'When it began.';
COMMENT ON COLUMN operation.updated_at IS 'When it last did something.';
COMMENT ON COLUMN operation.ended_at IS 'When it was done, interrupted or cancelled.';
COMMENT ON COLUMN operation.error IS 'What ended it early.';

CREATE TABLE history (
    message    uuid NOT NULL,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    seq        bigint GENERATED ALWAYS AS IDENTITY,
    what       text NOT NULL,
    operation  bigint,
    queue      text NOT NULL,
    attempts   integer,
    failed_at  timestamptz,
    host       text,
    error      text,
    headers    json,
    body       bytea,
    PRIMARY KEY (message, seq)
);
CREATE INDEX history_at ON history USING brin (at);
COMMENT ON TABLE history IS 'What operators did to single messages, and how those had failed before: rows are added and, when they are old, removed, never changed.';
COMMENT ON COLUMN history.message IS 'Message id.';
COMMENT ON COLUMN history.at IS 'When it was done.';
COMMENT ON COLUMN history.seq IS 'Order of what was done.';
COMMENT ON COLUMN history.what IS 'The kind of operation.';
COMMENT ON COLUMN history.operation IS 'The operation that did it.';
COMMENT ON COLUMN history.queue IS 'The queue of the message before.';
COMMENT ON COLUMN history.attempts IS 'Attempts that had been made.';
COMMENT ON COLUMN history.failed_at IS 'When the last of them failed.';
COMMENT ON COLUMN history.host IS 'The host on which it did.';
COMMENT ON COLUMN history.error IS 'Text of its error.';
COMMENT ON COLUMN history.headers IS 'For an edit: the headers before.';
COMMENT ON COLUMN history.body IS 'For an edit: the body before; null: it was not changed.';

-- Who may see a message may see what became of it; who may change it writes it down.
CREATE POLICY readable ON history FOR SELECT USING (queue_allows(queue, 'SELECT'));
CREATE POLICY writable ON history FOR INSERT WITH CHECK (queue_allows(queue, 'DELETE'));
ALTER TABLE history ENABLE ROW LEVEL SECURITY;
CREATE POLICY readable ON traffic FOR SELECT USING (queue_allows(queue, 'SELECT'));
ALTER TABLE traffic ENABLE ROW LEVEL SECURITY;

-- +goose StatementBegin
CREATE FUNCTION body_json(body bytea) RETURNS jsonb
LANGUAGE plpgsql STABLE -- not parallel: it begins subtransactions
AS $$
BEGIN
    RETURN convert_from(body, 'UTF8')::jsonb;
EXCEPTION WHEN data_exception THEN -- bytes that are no text included
    RETURN NULL;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION body_json IS 'A message body as JSON; null: it is none.';

-- +goose StatementBegin
CREATE FUNCTION header_value(headers json, name text) RETURNS text
LANGUAGE plpgsql STABLE -- not parallel: it begins subtransactions
AS $$
BEGIN
    RETURN headers ->> name;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION header_value IS 'The value of a header; null: there is none of that name, or the headers cannot be read.';

-- +goose StatementBegin
CREATE FUNCTION read_traffic() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET lock_timeout = '500ms' -- somebody may be dropping a queue
AS $$
BEGIN
    INSERT INTO traffic AS t (queue, arrived)
    SELECT q.name, coalesce(pg_sequence_last_value(to_regclass(quote_ident('s_' || q.name))), 0)
    FROM queue q LEFT JOIN traffic old ON old.queue = q.name
    WHERE old.queue IS NULL OR old.before IS DISTINCT FROM old.arrived
        OR old.arrived <> coalesce(pg_sequence_last_value(to_regclass(quote_ident('s_' || q.name))), 0)
    ORDER BY q.name
    ON CONFLICT (queue) DO UPDATE SET before = t.arrived, before_at = t.at, arrived = EXCLUDED.arrived, at = EXCLUDED.at;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION read_traffic IS 'Takes a reading of what has arrived in the queues. A queue in which nothing arrived since two readings is left alone.';

-- +goose StatementBegin
CREATE FUNCTION forget_history(most bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
DECLARE
    changes    bigint;
    operations bigint;
BEGIN
    WITH picked AS MATERIALIZED (
        SELECT h.message, h.seq FROM history h WHERE h.at < clock_timestamp() - interval '30 days' LIMIT most FOR UPDATE SKIP LOCKED
    )
    DELETE FROM history h USING picked p WHERE h.message = p.message AND h.seq = p.seq;
    GET DIAGNOSTICS changes = ROW_COUNT;
    WITH picked AS MATERIALIZED (
        SELECT o.id FROM operation o WHERE o.ended_at < clock_timestamp() - interval '90 days' ORDER BY o.id LIMIT most FOR UPDATE SKIP LOCKED
    )
    DELETE FROM operation o USING picked p WHERE o.id = p.id;
    GET DIAGNOSTICS operations = ROW_COUNT;
    RETURN greatest(changes, operations) >= most;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION forget_history IS 'Removes what operators did to single messages more than 30 days ago, and operations that ended more than 90 days ago, at most so many of each. True: there may be more.';

-- What 00002 grants stays as it is; this adds what came here.
ALTER FUNCTION grant_role(name, text, text[], boolean) RENAME TO grant_messages;
ALTER FUNCTION revoke_role(name, text[]) RENAME TO revoke_messages;
-- In their bodies a parameter is qualified by the name that the function had.
-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE replace(pg_get_functiondef('grant_messages'::regproc), 'grant_role.role', 'grant_messages.role');
    EXECUTE replace(pg_get_functiondef('revoke_messages'::regproc), 'revoke_role.role', 'revoke_messages.role');
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION grant_messages IS 'The part of grant_role that is about messages.';
COMMENT ON FUNCTION revoke_messages IS 'The part of revoke_role that is about messages.';

-- +goose StatementBegin
CREATE FUNCTION grant_role(role name, kind text, queues text[] DEFAULT NULL, bodies boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    others text[] := '{}'; -- privilege and table
    calls  text[] := '{}';
    word   text;
BEGIN
    PERFORM grant_messages(role, kind, queues, bodies);
    CASE kind
    WHEN 'consumer' THEN
        others := ARRAY['UPDATE (handled, failed, in_hand, rate, slow, slowest) ON instance'];
        calls := ARRAY['read_traffic', 'forget_history'];
    WHEN 'operator' THEN
        others := ARRAY['UPDATE (headers, body) ON error', 'UPDATE (due_at) ON delayed', 'UPDATE (paused_at, paused_by) ON queue',
            'SELECT, INSERT, UPDATE ON operation', 'SELECT, INSERT ON history', 'SELECT ON traffic',
            'UPDATE (crashed_at) ON instance', 'UPDATE (seq) ON leased']; -- of one column: enough to lock a row
        calls := ARRAY['body_json', 'header_value', 'move_due', 'recover_leased']; -- the last two for what doctor mends
    WHEN 'viewer' THEN
        others := ARRAY['SELECT ON operation', 'SELECT ON traffic',
            'SELECT (message, at, seq, what, operation, queue, attempts, failed_at, host, error) ON history'];
        IF bodies THEN
            others := others || ARRAY['SELECT ON history'];
            calls := ARRAY['body_json', 'header_value'];
        END IF;
    ELSE
    END CASE;
    FOREACH word IN ARRAY others LOOP
        EXECUTE format('GRANT %s TO %I', word, role);
    END LOOP;
    FOREACH word IN ARRAY calls LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %I TO %I', word, role);
    END LOOP;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION grant_role IS 'Lets a role be producer (sends, publishes, reads nothing), consumer (runs endpoints), operator (everything on messages; of all queues: makes and drops them) or viewer (counts and lists, no headers and bodies unless bodies), of the named queues or, with null, of all, those included that are made later. A role may be several.';

-- +goose StatementBegin
CREATE FUNCTION revoke_role(role name, queues text[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    PERFORM revoke_messages(role, queues);
    IF queues IS NULL THEN
        EXECUTE format('REVOKE ALL ON operation, history, traffic FROM %I', role);
    END IF;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION revoke_role IS 'Takes everything that grant_role gave to a role: with null all of it, use of the schema included, else what it has on the tables of the named queues.';

-- +goose StatementBegin
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN
        SELECT p.oid FROM pg_proc p
        WHERE p.pronamespace = quote_ident(current_schema())::regnamespace AND p.proname IN ('body_json', 'header_value', 'read_traffic',
            'forget_history', 'grant_role', 'revoke_role')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
END $$;
-- +goose StatementEnd

-- +goose Down

DROP FUNCTION revoke_role, grant_role;
ALTER FUNCTION grant_messages(name, text, text[], boolean) RENAME TO grant_role;
ALTER FUNCTION revoke_messages(name, text[]) RENAME TO revoke_role;
-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE replace(pg_get_functiondef('grant_role'::regproc), 'grant_messages.role', 'grant_role.role');
    EXECUTE replace(pg_get_functiondef('revoke_role'::regproc), 'revoke_messages.role', 'revoke_role.role');
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION grant_role IS 'Lets a role be producer (sends, publishes, reads nothing), consumer (runs endpoints), operator (everything on messages; of all queues: makes and drops them) or viewer (counts and lists, no headers and bodies unless bodies), of the named queues or, with null, of all, those included that are made later. A role may be several.';
COMMENT ON FUNCTION revoke_role IS 'Takes everything that grant_role gave to a role: with null all of it, use of the schema included, else what it has on the tables of the named queues.';
DROP FUNCTION forget_history, read_traffic, header_value, body_json;
DROP TABLE history, operation, traffic;
DROP INDEX error_type, error_status_time;
ALTER TABLE instance DROP handled, DROP failed, DROP in_hand, DROP rate, DROP slow, DROP slowest;
ALTER TABLE queue DROP paused_at, DROP paused_by;
