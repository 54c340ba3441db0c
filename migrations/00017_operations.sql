-- Operations: changes by operators, and who made them.

-- +goose Up

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

-- A role that may see a message may see its history; a role that may change it adds to that.
CREATE POLICY readable ON history FOR SELECT USING (queue_allows(queue, 'SELECT'));
CREATE POLICY writable ON history FOR INSERT WITH CHECK (queue_allows(queue, 'DELETE'));
ALTER TABLE history ENABLE ROW LEVEL SECURITY;

-- Reading bodies and headers: a message whose body or headers cannot be parsed matches no filter, and does not break a list.
-- +goose StatementBegin
CREATE FUNCTION body_json(body bytea) RETURNS jsonb
LANGUAGE plpgsql STABLE -- not parallel: it begins subtransactions
AS $$
DECLARE
    words text;
    value jsonb;
BEGIN
    words := convert_from(body, 'UTF8');
    value := words::jsonb;
    -- What could be read may still be nested deeper than a path can follow, and where the path is asked nobody catches that.
    IF length(words) > 2000 AND length(words) - length(translate(words, '[{', '')) > 1000 THEN
        PERFORM jsonb_path_exists(value, '$.**');
    END IF;
    RETURN value;
EXCEPTION WHEN OTHERS THEN -- no text, no JSON, nested too deep, too large; a cancelled statement is not caught
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
EXCEPTION WHEN OTHERS THEN -- no object, an escape that no text has, nested too deep
    RETURN NULL;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION header_value IS 'The value of a header; null: there is none of that name, or the headers cannot be read.';

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
        EXECUTE format($q$
            WITH gone AS (
                DELETE FROM %I.error e USING unnest($1) k (seq) WHERE e.seq = k.seq
                RETURNING e.*, '"sqlq-first-failed-at":"' || to_char(e.first_failed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
                    || '","sqlq-replays":"' || e.replays + 1 || '"' AS kept
            ), told AS (
                INSERT INTO %1$I.history (message, what, operation, queue, attempts, failed_at, host, error)
                SELECT g.id, 'replay', $2, g.queue, g.attempts, g.failed_at, g.host, g.message FROM gone g ORDER BY g.seq
            ) $q$, current_schema()) || moved_into(place, 'gone m ORDER BY m.seq', format('%I.rewrite_headers(m.headers, m.kept)', current_schema()),
            'CASE WHEN m.expires_at > clock_timestamp() AND isfinite(m.expires_at) THEN m.expires_at END', '0')
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

-- +goose StatementBegin
CREATE FUNCTION forget_history(most bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
DECLARE
    changes    bigint;
    cut        boolean;
    operations bigint;
BEGIN
    -- Of an edit the body before is there.
    WITH read AS MATERIALIZED (
        SELECT h.message, h.seq, coalesce(pg_column_size(h.body), 0) + coalesce(pg_column_size(h.headers), 0) AS size
        FROM history h WHERE h.at < clock_timestamp() - interval '30 days' LIMIT most FOR UPDATE SKIP LOCKED
    ), picked AS MATERIALIZED (
        SELECT p.message, p.seq FROM (SELECT r.message, r.seq, sum(r.size) OVER (ORDER BY r.seq) - r.size < 16777216 AS fits FROM read r) p WHERE p.fits
    ), gone AS (
        DELETE FROM history h USING picked p WHERE h.message = p.message AND h.seq = p.seq RETURNING 1
    )
    SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM read) > (SELECT count(*) FROM picked) INTO changes, cut;
    WITH picked AS MATERIALIZED (
        SELECT o.id FROM operation o WHERE o.ended_at < clock_timestamp() - interval '90 days' ORDER BY o.id LIMIT most FOR UPDATE SKIP LOCKED
    )
    DELETE FROM operation o USING picked p WHERE o.id = p.id;
    GET DIAGNOSTICS operations = ROW_COUNT;
    RETURN cut OR greatest(changes, operations) >= most;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION forget_history IS 'Removes what operators did to single messages more than 30 days ago, and operations that ended more than 90 days ago, at most so many of each. True: there may be more.';

INSERT INTO privilege (kind, privilege, sort, object, columns) VALUES
    ('operator', 'SELECT', 'table', 'operation', '{}'),
    ('operator', 'INSERT', 'table', 'operation', '{}'),
    ('operator', 'UPDATE', 'table', 'operation', '{}'),
    ('operator', 'SELECT', 'table', 'history', '{}'),
    ('operator', 'INSERT', 'table', 'history', '{}'),
    ('viewer', 'SELECT', 'table', 'operation', '{}'),
    ('viewer', 'SELECT', 'table', 'history', '{message,at,seq,what,operation,queue,attempts,failed_at,host,error}');
INSERT INTO privilege (kind, privilege, sort, object, given) VALUES
    ('viewer', 'SELECT', 'table', 'history', 'bodies'),
    ('viewer', 'EXECUTE', 'function', 'body_json', 'bodies'),
    ('viewer', 'EXECUTE', 'function', 'header_value', 'bodies');
INSERT INTO privilege (kind, privilege, sort, object) SELECT k, 'EXECUTE', 'function', f FROM (VALUES
    ('consumer', '{forget_history}'::text[]),
    ('operator', '{body_json,header_value,replay,cancel,pause,resume,set_paused}')) v (k, functions), unnest(functions) f;

CALL finish_migration('body_json', 'header_value', 'replay', 'cancel', 'set_paused', 'pause', 'resume', 'forget_history');

-- +goose Down

DROP FUNCTION forget_history, resume, pause, set_paused, cancel, replay, header_value, body_json;
DROP TABLE history, operation;
CALL finish_migration();
