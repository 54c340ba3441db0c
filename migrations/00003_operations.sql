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

-- One for each way to choose, and all in the order of failure: lists and batches read on from a place, and nothing that lies
-- between two messages that were chosen. The status comes first although few messages are archived: the planner judges by the
-- first column how well an index goes with the order of the table, and would rather follow the time alone past millions.
DROP INDEX error_status_queue, error_fingerprint;
CREATE INDEX error_status_time ON error (status, failed_at, seq);
CREATE INDEX error_status_queue ON error (status, queue, failed_at, seq);
CREATE INDEX error_status_type ON error (status, type, failed_at, seq);
CREATE INDEX error_status_group ON error (status, fingerprint, failed_at, seq);

CREATE TABLE operation (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind       text NOT NULL,
    status     text NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'done', 'interrupted', 'cancelled')),
    filter     json NOT NULL DEFAULT '{}',
    queue      text,
    up_to      bigint,
    after      bigint NOT NULL DEFAULT 0,
    after_at   timestamptz,
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
COMMENT ON COLUMN operation.after IS 'Everything up to this number has been done; where after_at is set: of what has that time.';
COMMENT ON COLUMN operation.after_at IS 'For what goes by the time of failure or by the due time: everything up to this time has been done, or, if it goes from the last one to the first, from this time on; null: it goes by number, or has done nothing yet.';
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

-- A queue's table is that in this schema. One in pg_temp would be the caller's own: what runs as the owner would fill it, and
-- run the caller's triggers as the owner.
-- +goose StatementBegin
DO $$
DECLARE
    f regproc;
BEGIN
    FOREACH f IN ARRAY ARRAY['queue_table', 'queue_allows', 'move_due', 'recover_leased']::regproc[] LOOP
        EXECUTE replace(pg_get_functiondef(f), 'to_regclass(quote_ident(''q_''', 'to_regclass(quote_ident(current_schema()) || ''.'' || quote_ident(''q_''');
    END LOOP;
END $$;
-- +goose StatementEnd

-- To ask about the queue of each row is too dear where there may be millions. This asks about all queues, once for each
-- statement.
-- +goose StatementBegin
CREATE FUNCTION queues_apart(privilege text) RETURNS text[]
LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $$
DECLARE
    gone boolean := queue_allows(NULL, privilege);
BEGIN
    RETURN ARRAY(
        SELECT substr(c.relname, 3) FROM pg_class c
        WHERE c.relname >= 'q_' AND c.relname < 'q`' AND c.relnamespace = quote_ident(current_schema())::regnamespace AND c.relkind = 'r'
            AND queue_allows(substr(c.relname, 3), privilege) <> gone
    );
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION queues_apart IS 'The queues of which queue_allows says another thing to the current role than of one that is gone: the allowed ones of a role that has some queues, the refused ones of a role that has all.';
ALTER FUNCTION queue_allows(text, text) PARALLEL SAFE;

ALTER POLICY readable ON delayed USING ((queue = ANY ((SELECT queues_apart('SELECT'))::text[])) <> (SELECT queue_allows(NULL, 'SELECT')));
ALTER POLICY writable ON delayed USING ((queue = ANY ((SELECT queues_apart('DELETE'))::text[])) <> (SELECT queue_allows(NULL, 'DELETE')));
ALTER POLICY readable ON error USING ((queue = ANY ((SELECT queues_apart('SELECT'))::text[])) <> (SELECT queue_allows(NULL, 'SELECT')));
ALTER POLICY writable ON error USING ((queue = ANY ((SELECT queues_apart('DELETE'))::text[])) <> (SELECT queue_allows(NULL, 'DELETE')));

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

-- +goose StatementBegin
CREATE FUNCTION send_many(queue text, type text, bodies json[], headers json DEFAULT NULL, delay interval DEFAULT NULL, expires_in interval DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    tab     regclass := queue_table(send_many.queue);
    missing bigint;
    channel text;
    sent    bigint;
BEGIN
    -- By their seconds: compared as intervals, 100 years are 36,000 days.
    IF delay < interval '0' OR expires_in <= interval '0'
        OR greatest(extract(epoch FROM delay), extract(epoch FROM expires_in)) > extract(epoch FROM interval '100 years') THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('delay %s or time to live %s is out of range', delay, expires_in),
            HINT = 'Both are counted from now and end within a hundred years.';
    END IF;
    SELECT b.n INTO missing FROM unnest(bodies) WITH ORDINALITY b (body, n) WHERE b.body IS NULL ORDER BY b.n LIMIT 1;
    IF bodies IS NULL OR missing IS NOT NULL THEN
        RAISE null_value_not_allowed USING
            MESSAGE = coalesce('a message has a body, and number ' || missing || ' has none', 'there are no bodies'),
            HINT = 'An empty one is the JSON value null: ''null''.';
    END IF;
    headers := check_message(send_many.type, 'null', send_many.headers);
    IF delay > interval '0' THEN
        INSERT INTO delayed (due_at, id, expires_at, why, queue, type, headers, body)
        SELECT clock_timestamp() + delay, uuid_v7(), clock_timestamp() + expires_in, 'delay', send_many.queue, send_many.type,
            send_many.headers, convert_to(b.body::text, 'UTF8')
        FROM unnest(bodies) WITH ORDINALITY b (body, n) ORDER BY b.n;
        GET DIAGNOSTICS sent = ROW_COUNT;
        -- The mover looks once a second by itself.
        IF sent > 0 AND delay < interval '2 seconds' THEN
            channel := 'sqlq_' || 'delayed'::regclass::oid;
        END IF;
    ELSE
        EXECUTE format($q$
            INSERT INTO %s (id, expires_at, type, headers, body)
            SELECT uuid_v7(), clock_timestamp() + $1, $2, $3, convert_to(b.body::text, 'UTF8')
            FROM unnest($4) WITH ORDINALITY b (body, n) ORDER BY b.n$q$, tab)
        USING expires_in, send_many.type, send_many.headers, bodies;
        GET DIAGNOSTICS sent = ROW_COUNT;
        IF sent > 0 THEN
            channel := queue_asleep(tab);
        END IF;
    END IF;
    IF channel IS NOT NULL AND current_setting('sqlq.notify', true) IS DISTINCT FROM 'off' THEN
        PERFORM pg_notify(channel, '');
    END IF;
    RETURN sent;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION send_many IS 'Sends a message for each body to a queue, in their order, by one insert and with one wake-up, as part of the running transaction. Returns how many.';

-- +goose StatementBegin
CREATE FUNCTION backlog(queue text) RETURNS bigint
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    tab   regclass := queue_table(backlog.queue);
    first bigint := coalesce((SELECT q.low FROM queue q WHERE q.name = backlog.queue), 0);
    last  bigint := coalesce(pg_sequence_last_value(to_regclass(quote_ident('s_' || backlog.queue))), 0);
    pages bigint := pg_relation_size(tab) / current_setting('block_size')::bigint;
    ends  bigint;
    n     bigint;
BEGIN
    IF first > last THEN -- a failover has set the sequence back
        first := 0;
    END IF;
    -- A number is in the index once at most, its message be there or gone: so many numbers are so much effort.
    IF last - first <= 50000 THEN
        EXECUTE format('SELECT count(*) FROM %s WHERE seq > $1', tab) INTO n USING first;
        RETURN n;
    END IF;
    IF pages <= 250 THEN
        EXECUTE format('SELECT count(*) FROM %s TABLESAMPLE SYSTEM (100)', tab) INTO n;
        RETURN n;
    END IF;
    EXECUTE format('SELECT (SELECT count(*) FROM %1$s WHERE seq > $1 AND seq <= $1 + 25000) + (SELECT count(*) FROM %1$s WHERE seq > $2 - 25000)', tab)
    INTO ends USING first, last;
    EXECUTE format('SELECT round(count(*) * $1 / 250.0)::bigint FROM %s TABLESAMPLE SYSTEM ($2)', tab)
    INTO n USING pages, 25000.0 / pages;
    RETURN greatest(ends, n);
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION backlog IS 'How many messages wait in a queue, those that a receiver holds included: exact while few numbers lie between queue.low and the last one or the table is small, else an estimate. It never reads more than 50,000 index entries and 250 pages, so it may be called every few seconds.';

-- +goose StatementBegin
CREATE FUNCTION replay(queue text DEFAULT NULL, type text DEFAULT NULL, fingerprint text DEFAULT NULL, id uuid DEFAULT NULL, most bigint DEFAULT 1000) RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    wanted    text := '';
    place     text;
    seqs      bigint[];
    tab       regclass;
    channel   text;
    op        bigint;
    replayed  bigint := 0;
BEGIN
    IF num_nonnulls(replay.queue, replay.type, replay.fingerprint, replay.id) = 0 THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'this would replay the failed messages of all queues',
            HINT = 'Name a queue, a type, a fingerprint or an id: replay(queue => ''sales'').';
    END IF;
    IF most IS NULL OR most < 1 THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('most %s is out of range', coalesce(most::text, 'null')),
            HINT = 'It is how many messages are replayed at most, from 1 on; all of them go in one transaction.';
    END IF;
    IF replay.queue IS NULL THEN -- messages whose queue is gone stay
        wanted := ' AND e.queue IN (SELECT q.name FROM queue q)';
    ELSE
        PERFORM queue_table(replay.queue);
        wanted := ' AND e.queue = $1';
    END IF;
    wanted := wanted || CASE WHEN replay.type IS NOT NULL THEN ' AND e.type = $2' ELSE '' END
        || CASE WHEN replay.fingerprint IS NOT NULL THEN ' AND e.fingerprint = $3' ELSE '' END
        || CASE WHEN replay.id IS NOT NULL THEN ' AND e.id = $4' ELSE '' END;
    FOR place, seqs IN EXECUTE format($q$
        WITH picked AS MATERIALIZED (
            SELECT e.seq, e.queue FROM error e WHERE e.status = 'failed' %s ORDER BY e.failed_at, e.seq LIMIT $5 FOR UPDATE SKIP LOCKED
        )
        SELECT p.queue, array_agg(p.seq ORDER BY p.seq) FROM picked p GROUP BY p.queue ORDER BY p.queue$q$, wanted)
        USING replay.queue, replay.type, replay.fingerprint, replay.id, most
    LOOP
        IF op IS NULL THEN
            INSERT INTO operation AS o (kind, filter, queue)
            VALUES ('replay', json_strip_nulls(json_build_object('names', CASE WHEN replay.id IS NOT NULL THEN ARRAY[replay.id] END,
                'queue', replay.queue, 'type', replay.type, 'group', replay.fingerprint, 'limit', most)), NULL) RETURNING o.id INTO op;
        END IF;
        tab := queue_table(place);
        -- As Go does it (ReplayFailed): the headers are extended as text, and headers that are no object stay as they are.
        EXECUTE format($q$
            WITH gone AS (
                DELETE FROM error e USING unnest($1) k (seq) WHERE e.seq = k.seq
                RETURNING e.*, '"sqlq-first-failed-at":"' || to_char(e.first_failed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
                    || '","sqlq-replays":"' || e.replays + 1 || '"' AS kept
            ), told AS (
                INSERT INTO history (message, what, operation, queue, attempts, failed_at, host, error)
                SELECT g.id, 'replay', $2, g.queue, g.attempts, g.failed_at, g.host, g.message FROM gone g ORDER BY g.seq
            )
            INSERT INTO %s (id, sent_at, expires_at, attempt, type, headers, body)
            SELECT g.id, g.sent_at, CASE WHEN g.expires_at > clock_timestamp() THEN g.expires_at END, 0, g.type,
                CASE WHEN g.headers IS NULL OR g.headers::text ~ '^\s*\{\s*\}\s*$' THEN ('{' || g.kept || '}')::json
                    WHEN json_typeof(g.headers) = 'object' THEN (regexp_replace(g.headers::text, '\s*\}\s*$', ',') || g.kept || '}')::json
                    ELSE g.headers END,
                g.body
            FROM gone g ORDER BY g.seq$q$, tab)
        USING seqs, op;
        replayed := replayed + cardinality(seqs);
        channel := queue_asleep(tab);
        IF channel IS NOT NULL AND current_setting('sqlq.notify', true) IS DISTINCT FROM 'off' THEN
            PERFORM pg_notify(channel, '');
        END IF;
    END LOOP;
    UPDATE operation o SET status = 'done', wanted = replayed, done = replayed, updated_at = clock_timestamp(), ended_at = clock_timestamp()
    WHERE o.id = op;
    RETURN replayed;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION replay IS 'Moves failed messages of a queue, of a type, of one fault (fingerprint) or with an id back to their queues, where they start again at attempt 0: the oldest first, at most so many, as part of the running transaction. Returns how many. Archived ones stay, those of a queue that is gone too, and those that somebody else replays at this moment.';

-- +goose StatementBegin
CREATE FUNCTION cancel(id uuid) RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    cancelled bigint;
BEGIN
    WITH gone AS (
        DELETE FROM delayed d WHERE d.id = cancel.id RETURNING d.id, d.seq, d.queue, d.attempt, d.error
    ), op AS (
        INSERT INTO operation AS o (kind, status, filter, wanted, done, ended_at)
        SELECT 'cancel', 'done', json_build_object('names', ARRAY[cancel.id]), count(*), count(*), clock_timestamp() FROM gone HAVING count(*) > 0
        RETURNING o.id
    ), told AS (
        INSERT INTO history (message, what, operation, queue, attempts, error)
        SELECT g.id, 'cancel', op.id, g.queue, g.attempt, g.error FROM gone g, op ORDER BY g.seq
    )
    SELECT count(*) INTO cancelled FROM gone;
    RETURN cancelled;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION cancel IS 'Removes the delayed message of that id, of an event all its delayed copies, for good. Returns how many: 0 when it is not there or has moved to its queue. There is no index by id, so it reads the table of delayed messages.';

-- +goose StatementBegin
CREATE FUNCTION set_paused(queue text, paused boolean, reason text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    PERFORM queue_table(set_paused.queue);
    IF NOT queue_allows(set_paused.queue, 'DELETE') THEN -- row security would only hide the row
        RAISE insufficient_privilege USING MESSAGE = format('permission denied for queue %s', to_json(set_paused.queue));
    END IF;
    UPDATE queue q SET paused_at = CASE WHEN paused THEN clock_timestamp() END,
        paused_by = CASE WHEN paused THEN concat_ws(': ', session_user, nullif(reason, '')) END
    WHERE q.name = set_paused.queue AND (q.paused_at IS NULL) = paused;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO operation (kind, status, queue, reason, ended_at)
    VALUES (CASE WHEN paused THEN 'pause' ELSE 'resume' END, 'done', set_paused.queue, coalesce(set_paused.reason, ''), clock_timestamp());
    -- Endpoints that run look at the registry.
    IF current_setting('sqlq.notify', true) IS DISTINCT FROM 'off' THEN
        PERFORM pg_notify('sqlq_' || 'queue'::regclass::oid, '');
    END IF;
    RETURN true;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION set_paused IS 'What pause and resume do.';

-- +goose StatementBegin
CREATE FUNCTION pause(queue text, reason text DEFAULT '') RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$ BEGIN RETURN set_paused(pause.queue, true, pause.reason); END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION pause IS 'Stops handing out the messages of a queue; sending to it goes on, and what is being handled is finished. True: paused; false: it was already.';

-- +goose StatementBegin
CREATE FUNCTION resume(queue text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$ BEGIN RETURN set_paused(resume.queue, false, ''); END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION resume IS 'Hands out the messages of a paused queue again. True: resumed; false: it was not paused.';

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
    WHEN 'producer' THEN
        calls := ARRAY['send_many'];
    WHEN 'consumer' THEN
        others := ARRAY['UPDATE (handled, failed, in_hand, rate, slow, slowest) ON instance'];
        calls := ARRAY['read_traffic', 'forget_history', 'backlog'];
    WHEN 'operator' THEN
        others := ARRAY['UPDATE (headers, body) ON error', 'UPDATE (due_at) ON delayed', 'UPDATE (paused_at, paused_by) ON queue',
            'SELECT, INSERT, UPDATE ON operation', 'SELECT, INSERT ON history', 'SELECT ON traffic',
            'UPDATE (crashed_at) ON instance', 'UPDATE (seq) ON leased']; -- of one column: enough to lock a row
        calls := ARRAY['body_json', 'header_value', 'send_many', 'backlog', 'replay', 'cancel', 'pause', 'resume', 'set_paused',
            'move_due', 'recover_leased']; -- the last two for what doctor mends
    WHEN 'viewer' THEN
        others := ARRAY['SELECT ON operation', 'SELECT ON traffic', 'SELECT (error) ON delayed',
            'SELECT (message, at, seq, what, operation, queue, attempts, failed_at, host, error) ON history'];
        calls := ARRAY['backlog'];
        IF bodies THEN
            others := others || ARRAY['SELECT ON history'];
            calls := calls || ARRAY['body_json', 'header_value'];
        END IF;
    ELSE
    END CASE;
    calls := calls || ARRAY['queues_apart']; -- row security asks it
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
    f   regprocedure;
    who regrole;
BEGIN
    FOR f IN
        SELECT p.oid FROM pg_proc p
        WHERE p.pronamespace = quote_ident(current_schema())::regnamespace AND p.proname IN ('queues_apart', 'body_json', 'header_value', 'read_traffic',
            'forget_history', 'send_many', 'backlog', 'replay', 'cancel', 'set_paused', 'pause', 'resume', 'grant_role', 'revoke_role')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
    FOR who IN -- roles that were granted before
        SELECT a.grantee FROM pg_proc p, aclexplode(p.proacl) a WHERE p.oid = 'queue_allows'::regproc AND a.grantee NOT IN (0, p.proowner)
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION queues_apart TO %s', who);
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
DROP FUNCTION resume, pause, set_paused, cancel, replay, backlog, send_many, forget_history, read_traffic, header_value, body_json;
DROP TABLE history, operation, traffic;
ALTER POLICY readable ON delayed USING (queue_allows(queue, 'SELECT'));
ALTER POLICY writable ON delayed USING (queue_allows(queue, 'DELETE'));
ALTER POLICY readable ON error USING (queue_allows(queue, 'SELECT'));
ALTER POLICY writable ON error USING (queue_allows(queue, 'DELETE'));
DROP FUNCTION queues_apart;
ALTER FUNCTION queue_allows(text, text) PARALLEL UNSAFE;
-- +goose StatementBegin
DO $$
DECLARE
    f regproc;
BEGIN
    FOREACH f IN ARRAY ARRAY['queue_table', 'queue_allows', 'move_due', 'recover_leased']::regproc[] LOOP
        EXECUTE replace(pg_get_functiondef(f), 'to_regclass(quote_ident(current_schema()) || ''.'' || quote_ident(''q_''', 'to_regclass(quote_ident(''q_''');
    END LOOP;
END $$;
-- +goose StatementEnd
DROP INDEX error_status_group, error_status_type, error_status_queue, error_status_time;
CREATE INDEX error_status_queue ON error (status, queue, seq);
CREATE INDEX error_fingerprint ON error (fingerprint, seq);
ALTER TABLE instance DROP handled, DROP failed, DROP in_hand, DROP rate, DROP slow, DROP slowest;
ALTER TABLE queue DROP paused_at, DROP paused_by;
