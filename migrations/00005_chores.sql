-- What runs as the owner names each table with its schema, and the background chores go in rounds that are bounded in bytes,
-- too, and of which no queue, message or setting of the caller's holds up the others.

-- +goose Up

-- A name that is looked up when a statement runs is that of a table in this schema, or of none. Unqualified it would reach one
-- in the caller's pg_temp when the queue has been dropped: its snapshot may be older, or the statement may have waited for
-- the drop. What runs as the owner would fill that, and run the caller's triggers as the owner.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION create_queue(name text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET lock_timeout = '10s' -- every role of the database can take the advisory lock
AS $$
DECLARE
    place text := current_schema();
    tab   text := 'q_' || name;
    col   text[];
BEGIN
    IF name IS NULL OR name !~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$' THEN
        RAISE invalid_name USING
            MESSAGE = format('queue name %s is not allowed', coalesce(to_json(name)::text, 'null')),
            HINT = 'Use 1 to 60 ASCII letters, digits, dots, hyphens and underscores, beginning with a letter or digit.';
    END IF;
    PERFORM pg_advisory_xact_lock(1936813169, queue_lock_key('queue'::regclass));
    IF EXISTS (SELECT FROM queue q WHERE q.name = create_queue.name) THEN
        RETURN false;
    END IF;
    -- Fixed-length columns first, so that no row pays for padding; eight columns, so that the null bitmap fits in the
    -- row header. A ninth would cost every row eight bytes.
    -- The key and the sequence are named apart from the tables, or queue "x_pkey" would collide with queue "x".
    EXECUTE format($q$
        CREATE TABLE %1$I.%2$I (
            seq        bigint GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME %1$I.%3$I) CONSTRAINT %4$I PRIMARY KEY,
            id         uuid NOT NULL,
            sent_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
            expires_at timestamptz,
            attempt    smallint NOT NULL DEFAULT 0,
            type       text NOT NULL,
            headers    json,
            body       bytea NOT NULL
        ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
            autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_scale_factor = 0,
            autovacuum_analyze_threshold = 1000000, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = false,
            toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 10000,
            toast.autovacuum_vacuum_cost_delay = 0, toast.vacuum_truncate = false)$q$, place, tab, 's_' || name, 'k_' || name);
    EXECUTE format('COMMENT ON TABLE %I.%I IS %L', place, tab,
        format('Ready messages of queue %s. Rows are inserted and deleted, never updated.', name));
    FOREACH col SLICE 1 IN ARRAY ARRAY[
        ['seq', 'Order of arrival.'],
        ['id', 'Message id, given by the sender.'],
        ['sent_at', 'When the message was first sent.'],
        ['expires_at', 'After this time the message is not handled any more; null: never.'],
        ['attempt', 'Attempts already made.'],
        ['type', 'Message type.'],
        ['headers', 'Headers: a JSON object of strings; null: none.'],
        ['body', 'Message body, as the sender encoded it.']]
    LOOP
        EXECUTE format('COMMENT ON COLUMN %I.%I.%I IS %L', place, tab, col[1], col[2]);
    END LOOP;
    INSERT INTO queue (name) VALUES (create_queue.name);
    -- Endpoints that run already look for the new table.
    IF current_setting('sqlq.notify', true) IS DISTINCT FROM 'off' THEN
        PERFORM pg_notify('sqlq_' || 'queue'::regclass::oid, '');
    END IF;
    RETURN true;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION grant_new_queue() RETURNS trigger
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    g record;
BEGIN
    FOR g IN
        SELECT pg_get_userbyid(a.grantee) AS grantee, a.privilege_type AS privilege, '' AS columns
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'ready'::regclass AND a.grantee NOT IN (0, c.relowner)
        UNION ALL
        SELECT pg_get_userbyid(a.grantee), a.privilege_type, format('(%I)', t.attname)
        FROM pg_attribute t, aclexplode(t.attacl) a
        WHERE t.attrelid = 'ready'::regclass AND a.grantee <> 0
    LOOP
        EXECUTE format('GRANT %s %s ON %I.%I TO %I', g.privilege, g.columns, current_schema(), 'q_' || NEW.name, g.grantee);
        IF g.privilege = 'SELECT' THEN
            EXECUTE format('GRANT SELECT ON SEQUENCE %I.%I TO %I', current_schema(), 's_' || NEW.name, g.grantee);
        END IF;
    END LOOP;
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION inbox_tables(queue text, keep interval, OUT written text, OUT other text)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    inbox_name text;
BEGIN
    -- It is called as the owner, for a role that must have the queue: SET ROLE shows in the setting.
    IF NOT has_table_privilege(coalesce(nullif(current_setting('role'), 'none'), session_user::text)::name, queue_table(inbox_tables.queue), 'DELETE') THEN
        RAISE insufficient_privilege USING MESSAGE = format('permission denied for queue %s', to_json(inbox_tables.queue));
    END IF;
    SELECT i.name INTO inbox_name FROM inbox i WHERE i.keeps >= keep ORDER BY i.keeps LIMIT 1;
    IF inbox_name IS NULL THEN
        RAISE invalid_parameter_value USING MESSAGE = format('no inbox keeps ids for %s', keep), HINT = 'The longest window is 31 days.';
    END IF;
    -- Its tables do not change places until this transaction ends. Only then is what the next statement reads final.
    EXECUTE format('LOCK TABLE %I.%I IN ROW EXCLUSIVE MODE', current_schema(), 'inbox_' || inbox_name || '_a');
    SELECT 'inbox_' || inbox_name || '_' || i.current, 'inbox_' || inbox_name || '_' || CASE i.current WHEN 'a' THEN 'b' ELSE 'a' END
    INTO written, other FROM inbox i WHERE i.name = inbox_name;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION claim_messages(queue text, ids uuid[], keep interval, instance integer, leases bigint[] DEFAULT '{}') RETURNS TABLE (id uuid, state text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off SET lock_timeout = '2s'
AS $$
DECLARE
    place   text := current_schema();
    tabs    record;
    lookup  text;
    claim   text;
    known   uuid[]; -- handled within the window
    busy    uuid[]; -- being handled by lease
    free    uuid[] := ids;
    claimed uuid[] := '{}';
    got     uuid[];
    one     uuid;
BEGIN
    tabs := inbox_tables(claim_messages.queue, keep);
    -- One look into the index for each id, whatever the planner believes of the tables. A claim that an older lease of the same
    -- instance left behind is not that of the new lease.
    lookup := $q$
        SELECT u.id, i.instance IS NULL AS done
        FROM unnest($2) u (id), LATERAL (SELECT * FROM %1$I.%2$I o WHERE o.id = u.id AND o.queue = $1 OFFSET 0) i
        WHERE i.instance IS NULL AND i.at > clock_timestamp() - $3
            OR i.instance IS NOT NULL AND EXISTS (
                SELECT FROM %1$I.leased l WHERE l.instance = i.instance AND l.queue = i.queue AND l.id = i.id AND l.lease <> ALL ($4))$q$;
    lookup := 'SELECT array_agg(k.id) FILTER (WHERE k.done), array_agg(k.id) FILTER (WHERE NOT k.done) FROM (' || lookup || ') k';
    EXECUTE format(lookup, place, tabs.other) INTO known, busy USING claim_messages.queue, ids, keep, leases;
    IF known IS NOT NULL OR busy IS NOT NULL THEN
        free := ARRAY(SELECT unnest(ids) EXCEPT SELECT unnest(known) EXCEPT SELECT unnest(busy));
    END IF;
    -- Sorted, so that two who claim the same ids do not wait for each other. What another transaction has claimed and not
    -- committed is waited for a moment; what has expired is taken over.
    claim := format($q$
        WITH claimed AS (
            INSERT INTO %1$I.%2$I AS i (queue, id, instance)
            SELECT DISTINCT $1, u.id, $4 FROM unnest($2) u (id) ORDER BY u.id
            ON CONFLICT ON CONSTRAINT %3$I DO UPDATE SET at = clock_timestamp(), instance = EXCLUDED.instance
            WHERE i.instance IS NULL AND i.at <= clock_timestamp() - $3
            RETURNING i.id
        )
        SELECT coalesce(array_agg(c.id), '{}') FROM claimed c$q$, place, tabs.written, tabs.written || '_pkey');
    BEGIN
        PERFORM set_config('lock_timeout', '10ms', true);
        EXECUTE claim INTO claimed USING claim_messages.queue, free, keep, claim_messages.instance;
    EXCEPTION WHEN lock_not_available THEN
        PERFORM set_config('lock_timeout', '1ms', true);
        FOR one IN SELECT DISTINCT u.id FROM unnest(free) u (id) ORDER BY u.id LOOP
            BEGIN
                EXECUTE claim INTO got USING claim_messages.queue, ARRAY[one], keep, claim_messages.instance;
                claimed := claimed || got;
            EXCEPTION WHEN lock_not_available THEN
                NULL;
            END;
        END LOOP;
    END;
    IF cardinality(claimed) < cardinality(free) THEN
        free := ARRAY(SELECT unnest(free) EXCEPT SELECT unnest(claimed));
        EXECUTE format(lookup, place, tabs.written) INTO got, busy USING claim_messages.queue, free, keep, leases;
        known := known || got;
        -- What a lease claimed that is gone is taken over: by a statement of its own, which sees the lease of every claim that
        -- it sees, and only if the claim is still the same when it is locked. Who takes one over changes its time.
        EXECUTE format($q$
            WITH void AS MATERIALIZED (
                SELECT i.id, i.instance, i.at
                FROM unnest($2) u (id), LATERAL (SELECT * FROM %1$I.%2$I o WHERE o.id = u.id AND o.queue = $1 OFFSET 0) i
                WHERE i.instance IS NOT NULL AND NOT EXISTS (
                    SELECT FROM %1$I.leased l WHERE l.instance = i.instance AND l.queue = i.queue AND l.id = i.id AND l.lease <> ALL ($4))
            ), picked AS MATERIALIZED (
                SELECT i.id FROM void v JOIN %1$I.%2$I i ON i.id = v.id AND i.queue = $1 AND i.instance = v.instance AND i.at = v.at
                FOR UPDATE OF i SKIP LOCKED
            ), claimed AS (
                UPDATE %1$I.%2$I i SET at = clock_timestamp(), instance = $3 FROM picked p WHERE i.id = p.id AND i.queue = $1 RETURNING i.id
            )
            SELECT coalesce(array_agg(c.id), '{}') FROM claimed c$q$, place, tabs.written)
        INTO got USING claim_messages.queue, free, claim_messages.instance, leases;
        claimed := claimed || got;
    END IF;
    RETURN QUERY SELECT u.id, 'claimed' FROM unnest(claimed) u (id) UNION ALL SELECT u.id, 'handled' FROM unnest(known) u (id);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION settle_claims(queue text, keep interval, handled uuid[], unhandled uuid[], leasing uuid[], leased boolean, instance integer) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    place text := current_schema();
    tabs  record;
    tab   text;
BEGIN
    tabs := inbox_tables(settle_claims.queue, keep);
    IF cardinality(leasing) > 0 THEN
        EXECUTE format('UPDATE %I.%I i SET instance = $3 WHERE i.queue = $1 AND i.id = ANY ($2)', place, tabs.written)
        USING settle_claims.queue, leasing, settle_claims.instance;
    END IF;
    IF cardinality(handled) > 0 THEN
        EXECUTE format('UPDATE %I.%I i SET instance = NULL, at = clock_timestamp() WHERE i.queue = $1 AND i.id = ANY ($2) AND i.instance = $3', place, tabs.written)
        USING settle_claims.queue, handled, settle_claims.instance;
        -- What was claimed for a lease before the inbox turned is kept from now on, too, and not just until the next turn.
        EXECUTE format($q$
            WITH gone AS (
                DELETE FROM %1$I.%2$I i WHERE i.queue = $1 AND i.id = ANY ($2) AND i.instance = $3 RETURNING i.id
            )
            INSERT INTO %1$I.%3$I AS i (queue, id) SELECT $1, g.id FROM gone g ORDER BY g.id
            ON CONFLICT ON CONSTRAINT %4$I DO UPDATE SET instance = NULL, at = EXCLUDED.at$q$, place, tabs.other, tabs.written, tabs.written || '_pkey')
        USING settle_claims.queue, handled, settle_claims.instance;
    END IF;
    IF cardinality(unhandled) > 0 THEN
        FOREACH tab IN ARRAY ARRAY[tabs.written, tabs.other] LOOP -- what was claimed for a lease may be in either
            EXECUTE format('DELETE FROM %I.%I i WHERE i.queue = $1 AND i.id = ANY ($2) AND i.instance IS NOT DISTINCT FROM $3', place, tab)
            USING settle_claims.queue, unhandled, CASE WHEN leased THEN settle_claims.instance END;
        END LOOP;
    END IF;
END $$;
-- +goose StatementEnd

-- One row that cannot be moved keeps the others from nothing. Due times without end, in either direction, are compared, never
-- reckoned with.
-- +goose StatementBegin
CREATE FUNCTION next_due(after timestamptz, aside text[] DEFAULT '{}', OUT due_at timestamptz, OUT queue text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
BEGIN
    IF cardinality(aside) = 0 THEN
        SELECT d.due_at, d.queue INTO due_at, queue FROM delayed d WHERE d.due_at >= after ORDER BY d.due_at LIMIT 1;
    ELSE
        SELECT d.due_at, d.queue INTO due_at, queue FROM delayed d WHERE d.due_at >= after AND d.queue <> ALL (aside) ORDER BY d.due_at LIMIT 1;
    END IF;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION next_due(timestamptz, text[]) IS 'When the first delayed message from a due time on is due, and its queue, some queues left aside; nulls: there is none.';

-- +goose StatementBegin
CREATE FUNCTION fail_due(due timestamptz[], seqs bigint[], kind text, failure text) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    -- The headers are read as text: ->> refuses some strings that json has let in. In a string a quote is escaped, so
    -- the patterns match whole headers only; of two of one name the last counts.
    WITH taken AS (
        DELETE FROM delayed d USING unnest(due, seqs) AS k (due_at, seq)
        WHERE d.due_at = k.due_at AND d.seq = k.seq RETURNING d.*
    ), known AS (
        SELECT t.*, json_typeof(t.headers) = 'object' AS listed,
            substring(t.headers::text FROM '.*"sqlq-first-failed-at":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z)"') AS first_failed,
            substring(t.headers::text FROM '.*"sqlq-replays":"(\d{1,9})"') AS replays,
            regexp_replace(regexp_replace(t.headers::text, ',\s*"sqlq-(first-failed-at|replays|crashes|waited)":"[^"\\]*"', '', 'g'),
                '^\s*\{\s*"sqlq-(first-failed-at|replays|crashes|waited)":"[^"\\]*"\s*,?', '{') AS others
        FROM taken t
    )
    INSERT INTO error (id, queue, endpoint, host, type, headers, body, attempts, replays, sent_at, expires_at,
        first_failed_at, error_type, message, fingerprint)
    SELECT id, queue, queue, '', type, CASE WHEN NOT listed THEN headers WHEN others !~ '^\s*\{\s*\}\s*$' THEN others::json END, body,
        attempt, CASE WHEN listed THEN coalesce(replays::integer, 0) ELSE 0 END, sent_at, CASE WHEN isfinite(expires_at) THEN expires_at END,
        coalesce(CASE WHEN listed THEN time_or_null(first_failed) END, clock_timestamp()),
        CASE kind WHEN 'no-queue' THEN 'NoQueue' ELSE 'QueueRefuses' END,
        coalesce(failure, 'queue ' || to_json(queue) || ' does not exist any more: create it and replay, or delete the message'), kind
    FROM known ORDER BY due_at, seq;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION fail_due(timestamptz[], bigint[], text, text) IS 'Moves delayed messages whose queue is gone, kind no-queue, or does not take them, kind queue-refuses, to the error table, so that they neither block others nor vanish.';

-- +goose StatementBegin
CREATE FUNCTION move_due(after timestamptz, most bigint, bytes bigint DEFAULT 16777216, queues text[] DEFAULT '{}', apart boolean DEFAULT false)
RETURNS TABLE (queue text, moved bigint, size bigint, more boolean, last_due timestamptz, channel text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET lock_timeout = '250ms' -- somebody may have a queue's table for long
AS $$
DECLARE
    place text := current_schema();
    move  text;
    due   timestamptz[];
    seqs  bigint[];
BEGIN
    FOR queue, due, seqs, size, more, last_due IN
        WITH read AS MATERIALIZED (
            SELECT d.queue, d.due_at, d.seq, pg_column_size(d.body) + coalesce(pg_column_size(d.headers), 0) AS size FROM delayed d
            WHERE d.due_at >= after AND d.due_at <= statement_timestamp() AND (d.queue = ANY (queues)) = apart
            ORDER BY d.due_at, d.seq LIMIT most FOR UPDATE SKIP LOCKED
        ), placed AS ( -- as they were read: to sort them again would cost a fifth of moving a message, and which fit matters little
            SELECT r.*, sum(r.size) OVER (ROWS UNBOUNDED PRECEDING) - r.size < bytes AS fits FROM read r
        )
        SELECT p.queue, array_agg(p.due_at) FILTER (WHERE p.fits), array_agg(p.seq) FILTER (WHERE p.fits),
            sum(p.size) FILTER (WHERE p.fits), NOT bool_and(p.fits), max(p.due_at) FILTER (WHERE p.fits)
        FROM placed p GROUP BY p.queue HAVING bool_or(p.fits) ORDER BY p.queue
    LOOP
        moved := cardinality(seqs);
        channel := NULL;
        -- Nobody drops the table after this. What waits for one that is being dropped finds it gone.
        BEGIN
            EXECUTE format('LOCK TABLE %I.%I IN ROW EXCLUSIVE MODE', place, 'q_' || queue);
        EXCEPTION
            WHEN undefined_table THEN
                PERFORM fail_due(due, seqs, 'no-queue', NULL);
                RETURN NEXT;
                CONTINUE;
            WHEN lock_not_available THEN
                moved := 0;
                RETURN NEXT;
                CONTINUE;
        END;
        move := format($q$
            WITH taken AS (
                DELETE FROM %1$I.delayed d USING unnest($1, $2) AS k (due_at, seq)
                WHERE d.due_at = k.due_at AND d.seq = k.seq RETURNING d.*
            )
            INSERT INTO %1$I.%2$I (id, sent_at, expires_at, attempt, type, headers, body)
            SELECT id, sent_at, nullif(expires_at, 'infinity'), attempt, type, headers, body FROM taken ORDER BY due_at, seq$q$, place, 'q_' || queue);
        IF most > 1 THEN
            EXECUTE move USING due, seqs;
        ELSE -- whose fault it is cannot be told before it is alone
            BEGIN
                EXECUTE move USING due, seqs;
            EXCEPTION WHEN data_exception OR integrity_constraint_violation OR raise_exception THEN
                PERFORM fail_due(due, seqs, 'queue-refuses', left('the queue does not take it: ' || SQLERRM, 8000));
            END;
        END IF;
        channel := queue_asleep(to_regclass(format('%I.%I', place, 'q_' || queue)));
        RETURN NEXT;
    END LOOP;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION move_due(timestamptz, bigint, bigint, text[], boolean) IS 'Moves delayed messages that are due to their queues, those due first: at most so many and so many bytes, but at least one; from a due time on; those of all queues but some, or, apart, of those queues only. One that its queue does not take goes to the error table, when it is alone. Returns for each queue how many, their bytes, whether there was more than the bytes allow, the latest due time, and the channel to notify after the commit. None moved: somebody has the table for long.';

-- +goose StatementBegin
CREATE FUNCTION recover_leased(only_queue text DEFAULT NULL, most bigint DEFAULT 1000, bytes bigint DEFAULT 16777216)
RETURNS TABLE (queue text, recovered bigint, more boolean, channel text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET lock_timeout = '250ms' -- somebody may have a queue's table for long
AS $$
DECLARE
    place text := current_schema();
    move  text;
BEGIN
    FOR queue IN
        SELECT DISTINCT l.queue FROM leased l
        WHERE (only_queue IS NULL OR l.queue = only_queue)
            AND NOT EXISTS (SELECT FROM instance i WHERE i.id = l.instance AND i.drained_at IS NULL AND i.crashed_at IS NULL)
        ORDER BY l.queue
    LOOP
        CONTINUE WHEN to_regclass(format('%I.%I', place, 'q_' || queue)) IS NULL;
        recovered := 0;
        more := true;
        channel := NULL;
        IF most < 1 THEN
            RETURN NEXT;
            CONTINUE;
        END IF;
        BEGIN
            EXECUTE format('LOCK TABLE %I.%I IN ROW EXCLUSIVE MODE', place, 'q_' || queue);
        EXCEPTION
            WHEN undefined_table THEN
                CONTINUE;
            WHEN lock_not_available THEN
                RETURN NEXT;
                CONTINUE;
        END;
        -- The headers are extended as text, and headers that are no object stay as they are: see withHeaders in Go. What has
        -- them was sent before, whatever a server whose clock is behind believes.
        move := format($q$
            WITH read AS MATERIALIZED (
                SELECT l.instance, l.lease, l.leased_at, l.seq, pg_column_size(l.body) + coalesce(pg_column_size(l.headers), 0) AS size
                FROM %1$I.leased l
                WHERE l.queue = $1 AND NOT EXISTS (
                    SELECT FROM %1$I.instance i WHERE i.id = l.instance AND i.drained_at IS NULL AND i.crashed_at IS NULL)
                ORDER BY l.leased_at, l.seq LIMIT $2 FOR UPDATE OF l SKIP LOCKED
            ), picked AS MATERIALIZED (
                SELECT p.instance, p.lease FROM (
                    SELECT r.instance, r.lease, sum(r.size) OVER (ORDER BY r.leased_at, r.seq, r.instance, r.lease) - r.size < $3 AS fits FROM read r) p
                WHERE p.fits
            ), taken AS (
                DELETE FROM %1$I.leased l USING picked p WHERE l.instance = p.instance AND l.lease = p.lease RETURNING l.*
            ), stored AS (
                INSERT INTO %1$I.%2$I (id, sent_at, expires_at, attempt, type, headers, body)
                SELECT id, least(sent_at, statement_timestamp() - interval '1 microsecond'), nullif(expires_at, 'infinity'), attempt, type,
                    CASE WHEN headers::text LIKE '%%"sqlq-crashes":"%%' THEN headers
                        WHEN headers IS NULL OR headers::text ~ '^\s*\{\s*\}\s*$' THEN '{"sqlq-crashes":"0"}'
                        WHEN json_typeof(headers) = 'object' THEN (regexp_replace(headers::text, '\s*\}\s*$', ',') || '"sqlq-crashes":"0"}')::json
                        ELSE headers END,
                    body
                FROM taken ORDER BY leased_at, seq
            )
            SELECT (SELECT count(*) FROM picked), (SELECT count(*) FROM read) > (SELECT count(*) FROM picked) OR (SELECT count(*) FROM read) >= $2$q$,
            place, 'q_' || queue);
        IF most > 1 THEN
            EXECUTE move INTO recovered, more USING queue, most, bytes;
        ELSE
            BEGIN
                EXECUTE move INTO recovered, more USING queue, most, bytes;
            EXCEPTION WHEN data_exception OR integrity_constraint_violation OR program_limit_exceeded OR raise_exception THEN
                -- What moves the delayed messages puts into the error table what a queue does not take.
                EXECUTE format($q$
                    WITH picked AS MATERIALIZED (
                        SELECT l.instance, l.lease FROM %1$I.leased l
                        WHERE l.queue = $1 AND NOT EXISTS (
                            SELECT FROM %1$I.instance i WHERE i.id = l.instance AND i.drained_at IS NULL AND i.crashed_at IS NULL)
                        ORDER BY l.leased_at, l.seq LIMIT 1 FOR UPDATE OF l SKIP LOCKED
                    ), taken AS (
                        DELETE FROM %1$I.leased l USING picked p WHERE l.instance = p.instance AND l.lease = p.lease RETURNING l.*
                    )
                    INSERT INTO %1$I.delayed (due_at, id, sent_at, expires_at, attempt, why, queue, type, headers, body)
                    SELECT clock_timestamp(), id, least(sent_at, statement_timestamp() - interval '1 microsecond'), CASE WHEN isfinite(expires_at) THEN expires_at END, attempt, 'retry', queue, type, headers, body
                    FROM taken$q$, place) USING queue;
                GET DIAGNOSTICS recovered = ROW_COUNT;
            END;
        END IF;
        channel := queue_asleep(to_regclass(format('%I.%I', place, 'q_' || queue)));
        RETURN NEXT;
    END LOOP;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION recover_leased(text, bigint, bigint) IS 'Puts messages whose instance has ended back into their queues, in order, and marks them: one of them may have killed the process. Of each queue, or of one only, at most so many and so many bytes, but at least one. Returns for each queue how many, whether there may be more, and the channel to notify after the commit. With 0 it moves none, and only says which queues have any.';

-- +goose StatementBegin
CREATE FUNCTION sweep_expired(queue text, after bigint, most bigint, bytes bigint DEFAULT 16777216) RETURNS TABLE (removed bigint, up_to bigint, more boolean)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET lock_timeout = '250ms' -- somebody may have a queue's table for long
AS $$
BEGIN
    PERFORM queue_table(sweep_expired.queue);
    EXECUTE format($q$
        WITH read AS MATERIALIZED (
            SELECT r.seq, CASE WHEN r.expires_at <= statement_timestamp() THEN pg_column_size(r.body) + coalesce(pg_column_size(r.headers), 0) END AS size
            FROM %1$I.%2$I r WHERE r.seq > $1 ORDER BY r.seq LIMIT $2
        ), placed AS MATERIALIZED (
            SELECT r.seq, r.size IS NOT NULL AS expired, coalesce(sum(r.size) OVER (ORDER BY r.seq) - coalesce(r.size, 0) < $3, true) AS fits FROM read r
        ), picked AS MATERIALIZED (
            SELECT q.seq FROM %1$I.%2$I q JOIN placed p ON q.seq = p.seq WHERE p.expired AND p.fits FOR UPDATE OF q SKIP LOCKED
        ), gone AS (
            DELETE FROM %1$I.%2$I q USING picked p WHERE q.seq = p.seq RETURNING 1
        )
        SELECT (SELECT count(*) FROM gone), CASE WHEN count(*) < $2 AND bool_and(p.fits) IS NOT FALSE THEN 0 ELSE max(p.seq) FILTER (WHERE p.fits) END,
            NOT coalesce(bool_and(p.fits), true)
        FROM placed p$q$, current_schema(), 'q_' || sweep_expired.queue)
    INTO removed, up_to, more USING after, most, bytes;
    RETURN NEXT;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION sweep_expired(text, bigint, bigint, bigint) IS 'Removes messages of a queue whose time to live has passed: reads at most so many rows after a seq, and removes at most so many bytes, but at least one message. Returns how many it removed, up to which seq it came, 0: to the end, and whether the bytes kept it from reading on.';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION read_traffic() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET lock_timeout = '50ms' -- somebody may be dropping a queue
AS $$
DECLARE
    place text := current_schema();
    q     record;
    last  bigint;
    names text[] := '{}';
    reads bigint[] := '{}';
BEGIN
    FOR q IN SELECT r.name, old.queue IS NULL AS is_new, old.before, old.arrived FROM queue r LEFT JOIN traffic old ON old.queue = r.name ORDER BY r.name LOOP
        BEGIN
            last := coalesce(pg_sequence_last_value(to_regclass(format('%I.%I', place, 's_' || q.name))), 0);
        EXCEPTION WHEN OTHERS THEN -- it is being dropped, or somebody has it for long: the others are read all the same
            CONTINUE;
        END;
        IF q.is_new OR q.before IS DISTINCT FROM q.arrived OR q.arrived <> last THEN
            names := names || q.name;
            reads := reads || last;
        END IF;
    END LOOP;
    INSERT INTO traffic AS t (queue, arrived)
    SELECT u.name, u.arrived FROM unnest(names, reads) u (name, arrived) WHERE EXISTS (SELECT FROM queue r WHERE r.name = u.name) ORDER BY u.name
    ON CONFLICT (queue) DO UPDATE SET before = t.arrived, before_at = t.at, arrived = EXCLUDED.arrived, at = EXCLUDED.at;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION forget_history(most bigint) RETURNS boolean
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

-- Whoever might call the older ones may call what has taken their place.
-- +goose StatementBegin
DO $$
DECLARE
    g record;
BEGIN
    FOR g IN
        SELECT new.oid::regprocedure AS f, a.grantee::regrole AS who
        FROM pg_proc old JOIN pg_proc new ON new.pronamespace = old.pronamespace AND new.proname = old.proname AND new.oid <> old.oid,
            aclexplode(old.proacl) a
        WHERE old.oid = ANY (ARRAY['next_due(timestamptz)', 'fail_due(timestamptz[], bigint[])', 'move_due(timestamptz, bigint)', 'recover_leased()', 'sweep_expired(text, bigint, bigint)']::regprocedure[]) AND a.grantee NOT IN (0, old.proowner)
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', g.f, g.who);
    END LOOP;
END $$;
-- +goose StatementEnd
DROP FUNCTION next_due(timestamptz), fail_due(timestamptz[], bigint[]), move_due(timestamptz, bigint), recover_leased(), sweep_expired(text, bigint, bigint);

-- +goose StatementBegin
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN
        SELECT p.oid FROM pg_proc p
        WHERE p.pronamespace = quote_ident(current_schema())::regnamespace AND p.proname IN ('create_queue', 'grant_new_queue', 'inbox_tables', 'claim_messages',
            'settle_claims', 'body_json', 'header_value', 'read_traffic', 'forget_history', 'next_due', 'fail_due', 'move_due', 'recover_leased',
            'sweep_expired')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
    -- A backslash in a literal means itself, whatever the caller has set.
    FOR f IN
        SELECT p.oid FROM pg_proc p WHERE p.pronamespace = quote_ident(current_schema())::regnamespace AND strpos(p.prosrc, chr(92)) > 0
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET standard_conforming_strings = on', f);
    END LOOP;
END $$;
-- +goose StatementEnd

-- +goose Down

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION create_queue(name text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
DECLARE
    tab text := 'q_' || name;
    col text[];
BEGIN
    IF name IS NULL OR name !~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$' THEN
        RAISE invalid_name USING
            MESSAGE = format('queue name %s is not allowed', coalesce(to_json(name)::text, 'null')),
            HINT = 'Use 1 to 60 ASCII letters, digits, dots, hyphens and underscores, beginning with a letter or digit.';
    END IF;
    PERFORM pg_advisory_xact_lock(1936813169, queue_lock_key('queue'::regclass));
    IF EXISTS (SELECT FROM queue q WHERE q.name = create_queue.name) THEN
        RETURN false;
    END IF;
    -- Fixed-length columns first, so that no row pays for padding; eight columns, so that the null bitmap fits in the
    -- row header. A ninth would cost every row eight bytes.
    -- The key and the sequence are named apart from the tables, or queue "x_pkey" would collide with queue "x".
    EXECUTE format($q$
        CREATE TABLE %1$I (
            seq        bigint GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME %2$I) CONSTRAINT %3$I PRIMARY KEY,
            id         uuid NOT NULL,
            sent_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
            expires_at timestamptz,
            attempt    smallint NOT NULL DEFAULT 0,
            type       text NOT NULL,
            headers    json,
            body       bytea NOT NULL
        ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
            autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_scale_factor = 0,
            autovacuum_analyze_threshold = 1000000, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = false,
            toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 10000,
            toast.autovacuum_vacuum_cost_delay = 0, toast.vacuum_truncate = false)$q$, tab, 's_' || name, 'k_' || name);
    EXECUTE format('COMMENT ON TABLE %I IS %L', tab,
        format('Ready messages of queue %s. Rows are inserted and deleted, never updated.', name));
    FOREACH col SLICE 1 IN ARRAY ARRAY[
        ['seq', 'Order of arrival.'],
        ['id', 'Message id, given by the sender.'],
        ['sent_at', 'When the message was first sent.'],
        ['expires_at', 'After this time the message is not handled any more; null: never.'],
        ['attempt', 'Attempts already made.'],
        ['type', 'Message type.'],
        ['headers', 'Headers: a JSON object of strings; null: none.'],
        ['body', 'Message body, as the sender encoded it.']]
    LOOP
        EXECUTE format('COMMENT ON COLUMN %I.%I IS %L', tab, col[1], col[2]);
    END LOOP;
    INSERT INTO queue (name) VALUES (create_queue.name);
    -- Endpoints that run already look for the new table.
    IF current_setting('sqlq.notify', true) IS DISTINCT FROM 'off' THEN
        PERFORM pg_notify('sqlq_' || 'queue'::regclass::oid, '');
    END IF;
    RETURN true;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION grant_new_queue() RETURNS trigger
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    g record;
BEGIN
    FOR g IN
        SELECT pg_get_userbyid(a.grantee) AS grantee, a.privilege_type AS privilege, '' AS columns
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'ready'::regclass AND a.grantee NOT IN (0, c.relowner)
        UNION ALL
        SELECT pg_get_userbyid(a.grantee), a.privilege_type, format('(%I)', t.attname)
        FROM pg_attribute t, aclexplode(t.attacl) a
        WHERE t.attrelid = 'ready'::regclass AND a.grantee <> 0
    LOOP
        EXECUTE format('GRANT %s %s ON %I TO %I', g.privilege, g.columns, 'q_' || NEW.name, g.grantee);
        IF g.privilege = 'SELECT' THEN
            EXECUTE format('GRANT SELECT ON SEQUENCE %I TO %I', 's_' || NEW.name, g.grantee);
        END IF;
    END LOOP;
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION inbox_tables(queue text, keep interval, OUT written text, OUT other text)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    inbox_name text;
BEGIN
    -- It is called as the owner, for a role that must have the queue: SET ROLE shows in the setting.
    IF NOT has_table_privilege(coalesce(nullif(current_setting('role'), 'none'), session_user::text)::name, queue_table(inbox_tables.queue), 'DELETE') THEN
        RAISE insufficient_privilege USING MESSAGE = format('permission denied for queue %s', to_json(inbox_tables.queue));
    END IF;
    SELECT i.name INTO inbox_name FROM inbox i WHERE i.keeps >= keep ORDER BY i.keeps LIMIT 1;
    IF inbox_name IS NULL THEN
        RAISE invalid_parameter_value USING MESSAGE = format('no inbox keeps ids for %s', keep), HINT = 'The longest window is 31 days.';
    END IF;
    -- Its tables do not change places until this transaction ends. Only then is what the next statement reads final.
    EXECUTE format('LOCK TABLE %I IN ROW EXCLUSIVE MODE', 'inbox_' || inbox_name || '_a');
    SELECT 'inbox_' || inbox_name || '_' || i.current, 'inbox_' || inbox_name || '_' || CASE i.current WHEN 'a' THEN 'b' ELSE 'a' END
    INTO written, other FROM inbox i WHERE i.name = inbox_name;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION claim_messages(queue text, ids uuid[], keep interval, instance integer, leases bigint[] DEFAULT '{}') RETURNS TABLE (id uuid, state text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off SET lock_timeout = '2s'
AS $$
DECLARE
    tabs    record;
    lookup  text;
    claim   text;
    known   uuid[]; -- handled within the window
    busy    uuid[]; -- being handled by lease
    free    uuid[] := ids;
    claimed uuid[] := '{}';
    got     uuid[];
    one     uuid;
BEGIN
    tabs := inbox_tables(claim_messages.queue, keep);
    -- One look into the index for each id, whatever the planner believes of the tables. A claim that an older lease of the same
    -- instance left behind is not that of the new lease.
    lookup := $q$
        SELECT u.id, i.instance IS NULL AS done
        FROM unnest($2) u (id), LATERAL (SELECT * FROM %I o WHERE o.id = u.id AND o.queue = $1 OFFSET 0) i
        WHERE i.instance IS NULL AND i.at > clock_timestamp() - $3
            OR i.instance IS NOT NULL AND EXISTS (
                SELECT FROM leased l WHERE l.instance = i.instance AND l.queue = i.queue AND l.id = i.id AND l.lease <> ALL ($4))$q$;
    lookup := 'SELECT array_agg(k.id) FILTER (WHERE k.done), array_agg(k.id) FILTER (WHERE NOT k.done) FROM (' || lookup || ') k';
    EXECUTE format(lookup, tabs.other) INTO known, busy USING claim_messages.queue, ids, keep, leases;
    IF known IS NOT NULL OR busy IS NOT NULL THEN
        free := ARRAY(SELECT unnest(ids) EXCEPT SELECT unnest(known) EXCEPT SELECT unnest(busy));
    END IF;
    -- Sorted, so that two who claim the same ids do not wait for each other. What another transaction has claimed and not
    -- committed is waited for a moment; what has expired is taken over.
    claim := format($q$
        WITH claimed AS (
            INSERT INTO %1$I AS i (queue, id, instance)
            SELECT DISTINCT $1, u.id, $4 FROM unnest($2) u (id) ORDER BY u.id
            ON CONFLICT ON CONSTRAINT %2$I DO UPDATE SET at = clock_timestamp(), instance = EXCLUDED.instance
            WHERE i.instance IS NULL AND i.at <= clock_timestamp() - $3
            RETURNING i.id
        )
        SELECT coalesce(array_agg(c.id), '{}') FROM claimed c$q$, tabs.written, tabs.written || '_pkey');
    BEGIN
        PERFORM set_config('lock_timeout', '10ms', true);
        EXECUTE claim INTO claimed USING claim_messages.queue, free, keep, claim_messages.instance;
    EXCEPTION WHEN lock_not_available THEN
        PERFORM set_config('lock_timeout', '1ms', true);
        FOR one IN SELECT DISTINCT u.id FROM unnest(free) u (id) ORDER BY u.id LOOP
            BEGIN
                EXECUTE claim INTO got USING claim_messages.queue, ARRAY[one], keep, claim_messages.instance;
                claimed := claimed || got;
            EXCEPTION WHEN lock_not_available THEN
                NULL;
            END;
        END LOOP;
    END;
    IF cardinality(claimed) < cardinality(free) THEN
        free := ARRAY(SELECT unnest(free) EXCEPT SELECT unnest(claimed));
        EXECUTE format(lookup, tabs.written) INTO got, busy USING claim_messages.queue, free, keep, leases;
        known := known || got;
        -- What a lease claimed that is gone is taken over: by a statement of its own, which sees the lease of every claim that
        -- it sees, and only if the claim is still the same when it is locked. Who takes one over changes its time.
        EXECUTE format($q$
            WITH void AS MATERIALIZED (
                SELECT i.id, i.instance, i.at
                FROM unnest($2) u (id), LATERAL (SELECT * FROM %1$I o WHERE o.id = u.id AND o.queue = $1 OFFSET 0) i
                WHERE i.instance IS NOT NULL AND NOT EXISTS (
                    SELECT FROM leased l WHERE l.instance = i.instance AND l.queue = i.queue AND l.id = i.id AND l.lease <> ALL ($4))
            ), picked AS MATERIALIZED (
                SELECT i.id FROM void v JOIN %1$I i ON i.id = v.id AND i.queue = $1 AND i.instance = v.instance AND i.at = v.at
                FOR UPDATE OF i SKIP LOCKED
            ), claimed AS (
                UPDATE %1$I i SET at = clock_timestamp(), instance = $3 FROM picked p WHERE i.id = p.id AND i.queue = $1 RETURNING i.id
            )
            SELECT coalesce(array_agg(c.id), '{}') FROM claimed c$q$, tabs.written)
        INTO got USING claim_messages.queue, free, claim_messages.instance, leases;
        claimed := claimed || got;
    END IF;
    RETURN QUERY SELECT u.id, 'claimed' FROM unnest(claimed) u (id) UNION ALL SELECT u.id, 'handled' FROM unnest(known) u (id);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION settle_claims(queue text, keep interval, handled uuid[], unhandled uuid[], leasing uuid[], leased boolean, instance integer) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    tabs record;
    tab  text;
BEGIN
    tabs := inbox_tables(settle_claims.queue, keep);
    IF cardinality(leasing) > 0 THEN
        EXECUTE format('UPDATE %I i SET instance = $3 WHERE i.queue = $1 AND i.id = ANY ($2)', tabs.written)
        USING settle_claims.queue, leasing, settle_claims.instance;
    END IF;
    IF cardinality(handled) > 0 THEN
        EXECUTE format('UPDATE %I i SET instance = NULL, at = clock_timestamp() WHERE i.queue = $1 AND i.id = ANY ($2) AND i.instance = $3', tabs.written)
        USING settle_claims.queue, handled, settle_claims.instance;
        -- What was claimed for a lease before the inbox turned is kept from now on, too, and not just until the next turn.
        EXECUTE format($q$
            WITH gone AS (
                DELETE FROM %I i WHERE i.queue = $1 AND i.id = ANY ($2) AND i.instance = $3 RETURNING i.id
            )
            INSERT INTO %I AS i (queue, id) SELECT $1, g.id FROM gone g ORDER BY g.id
            ON CONFLICT ON CONSTRAINT %I DO UPDATE SET instance = NULL, at = EXCLUDED.at$q$, tabs.other, tabs.written, tabs.written || '_pkey')
        USING settle_claims.queue, handled, settle_claims.instance;
    END IF;
    IF cardinality(unhandled) > 0 THEN
        FOREACH tab IN ARRAY ARRAY[tabs.written, tabs.other] LOOP -- what was claimed for a lease may be in either
            EXECUTE format('DELETE FROM %I i WHERE i.queue = $1 AND i.id = ANY ($2) AND i.instance IS NOT DISTINCT FROM $3', tab)
            USING settle_claims.queue, unhandled, CASE WHEN leased THEN settle_claims.instance END;
        END LOOP;
    END IF;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION read_traffic() RETURNS void
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

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION forget_history(most bigint) RETURNS boolean
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

-- +goose StatementBegin
CREATE FUNCTION next_due(after timestamptz) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
BEGIN
    RETURN (SELECT d.due_at FROM delayed d WHERE d.due_at >= after ORDER BY d.due_at LIMIT 1);
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION next_due(timestamptz) IS 'When the first delayed message from a due time on is due; null: there is none.';

-- +goose StatementBegin
CREATE FUNCTION fail_due(due timestamptz[], seqs bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    -- The headers are read as text: ->> refuses some strings that json has let in. In a string a quote is escaped, so
    -- the patterns match whole headers only; of two of one name the last counts.
    WITH taken AS (
        DELETE FROM delayed d USING unnest(due, seqs) AS k (due_at, seq)
        WHERE d.due_at = k.due_at AND d.seq = k.seq RETURNING d.*
    ), known AS (
        SELECT t.*, json_typeof(t.headers) = 'object' AS listed,
            substring(t.headers::text FROM '.*"sqlq-first-failed-at":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z)"') AS first_failed,
            substring(t.headers::text FROM '.*"sqlq-replays":"(\d{1,9})"') AS replays,
            regexp_replace(regexp_replace(t.headers::text, ',\s*"sqlq-(first-failed-at|replays|crashes)":"[^"\\]*"', '', 'g'),
                '^\s*\{\s*"sqlq-(first-failed-at|replays|crashes)":"[^"\\]*"\s*,?', '{') AS others
        FROM taken t
    )
    INSERT INTO error (id, queue, endpoint, host, type, headers, body, attempts, replays, sent_at, expires_at,
        first_failed_at, error_type, message, fingerprint)
    SELECT id, queue, queue, '', type, CASE WHEN NOT listed THEN headers WHEN others !~ '^\s*\{\s*\}\s*$' THEN others::json END, body,
        attempt, CASE WHEN listed THEN coalesce(replays::integer, 0) ELSE 0 END, sent_at, expires_at,
        coalesce(CASE WHEN listed THEN time_or_null(first_failed) END, clock_timestamp()), 'NoQueue',
        'queue ' || to_json(queue) || ' does not exist any more: create it and replay, or delete the message', 'no-queue'
    FROM known ORDER BY due_at, seq;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION fail_due(timestamptz[], bigint[]) IS 'Moves delayed messages whose queue is gone to the error table, so that they neither block others nor vanish.';

-- +goose StatementBegin
CREATE FUNCTION move_due(after timestamptz, most bigint) RETURNS TABLE (queue text, moved bigint, last_due timestamptz, channel text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
DECLARE
    tab  regclass;
    due  timestamptz[];
    seqs bigint[];
BEGIN
    FOR queue, due, seqs, last_due IN
        WITH picked AS MATERIALIZED (
            SELECT d.queue, d.due_at, d.seq FROM delayed d
            WHERE d.due_at >= after AND d.due_at <= statement_timestamp()
            ORDER BY d.due_at, d.seq LIMIT most FOR UPDATE SKIP LOCKED
        )
        SELECT p.queue, array_agg(p.due_at ORDER BY p.due_at, p.seq), array_agg(p.seq ORDER BY p.due_at, p.seq), max(p.due_at)
        FROM picked p GROUP BY p.queue ORDER BY p.queue
    LOOP
        moved := cardinality(seqs);
        channel := NULL;
        tab := to_regclass(quote_ident(current_schema()) || '.' || quote_ident('q_' || queue));
        IF tab IS NULL THEN
            PERFORM fail_due(due, seqs);
        ELSE
            EXECUTE format($q$
                WITH taken AS (
                    DELETE FROM delayed d USING unnest($1, $2) AS k (due_at, seq)
                    WHERE d.due_at = k.due_at AND d.seq = k.seq RETURNING d.*
                )
                INSERT INTO %s (id, sent_at, expires_at, attempt, type, headers, body)
                SELECT id, sent_at, expires_at, attempt, type, headers, body FROM taken ORDER BY due_at, seq$q$, tab)
            USING due, seqs;
            channel := queue_asleep(tab);
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION move_due(timestamptz, bigint) IS 'Moves delayed messages that are due, at most so many and from a due time on, to their queues. Returns for each queue how many, the latest due time, and the channel to notify after the commit.';

-- +goose StatementBegin
CREATE FUNCTION recover_leased() RETURNS TABLE (queue text, recovered bigint, channel text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
DECLARE
    tab regclass;
BEGIN
    FOR queue IN
        SELECT DISTINCT l.queue FROM leased l
        WHERE NOT EXISTS (SELECT FROM instance i WHERE i.id = l.instance AND i.drained_at IS NULL AND i.crashed_at IS NULL)
    LOOP
        tab := to_regclass(quote_ident(current_schema()) || '.' || quote_ident('q_' || queue));
        CONTINUE WHEN tab IS NULL;
        -- The headers are extended as text, and headers that are no object stay as they are: see withHeaders in Go.
        EXECUTE format($q$
            WITH picked AS MATERIALIZED (
                SELECT l.instance, l.lease FROM leased l
                WHERE l.queue = $1 AND NOT EXISTS (
                    SELECT FROM instance i WHERE i.id = l.instance AND i.drained_at IS NULL AND i.crashed_at IS NULL)
                FOR UPDATE SKIP LOCKED
            ), taken AS (
                DELETE FROM leased l USING picked p WHERE l.instance = p.instance AND l.lease = p.lease RETURNING l.*
            )
            INSERT INTO %s (id, sent_at, expires_at, attempt, type, headers, body)
            SELECT id, sent_at, expires_at, attempt, type,
                CASE WHEN headers::text LIKE '%%"sqlq-crashes":"%%' THEN headers
                    WHEN headers IS NULL OR headers::text ~ '^\s*\{\s*\}\s*$' THEN '{"sqlq-crashes":"0"}'
                    WHEN json_typeof(headers) = 'object' THEN (regexp_replace(headers::text, '\s*\}\s*$', ',') || '"sqlq-crashes":"0"}')::json
                    ELSE headers END,
                body
            FROM taken ORDER BY leased_at, seq$q$, tab)
        USING queue;
        GET DIAGNOSTICS recovered = ROW_COUNT;
        channel := queue_asleep(tab);
        RETURN NEXT;
    END LOOP;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION recover_leased() IS 'Puts messages whose instance has ended back into their queues, in order, and marks them: one of them may have killed the process. Returns for each queue how many, and the channel to notify after the commit.';

-- +goose StatementBegin
CREATE FUNCTION sweep_expired(queue text, after bigint, most bigint) RETURNS TABLE (removed bigint, up_to bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
BEGIN
    EXECUTE format($q$
        WITH read AS MATERIALIZED (
            SELECT seq, expires_at FROM %1$s WHERE seq > $1 ORDER BY seq LIMIT $2
        ), picked AS MATERIALIZED (
            SELECT q.seq FROM %1$s q JOIN read r ON q.seq = r.seq WHERE r.expires_at <= clock_timestamp() FOR UPDATE OF q SKIP LOCKED
        ), gone AS (
            DELETE FROM %1$s q USING picked p WHERE q.seq = p.seq RETURNING 1
        )
        SELECT (SELECT count(*) FROM gone), CASE WHEN (SELECT count(*) FROM read) < $2 THEN 0 ELSE (SELECT max(seq) FROM read) END$q$,
        queue_table(sweep_expired.queue))
    INTO removed, up_to USING after, most;
    RETURN NEXT;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION sweep_expired(text, bigint, bigint) IS 'Removes messages of a queue whose time to live has passed: reads at most so many rows after a seq. Returns how many it removed and up to which seq it read; 0: to the end.';

-- Whoever might call the newer ones may call what has taken their place.
-- +goose StatementBegin
DO $$
DECLARE
    g record;
BEGIN
    FOR g IN
        SELECT new.oid::regprocedure AS f, a.grantee::regrole AS who
        FROM pg_proc old JOIN pg_proc new ON new.pronamespace = old.pronamespace AND new.proname = old.proname AND new.oid <> old.oid,
            aclexplode(old.proacl) a
        WHERE old.oid = ANY (ARRAY['next_due(timestamptz, text[])', 'fail_due(timestamptz[], bigint[], text, text)', 'move_due(timestamptz, bigint, bigint, text[], boolean)', 'recover_leased(text, bigint, bigint)', 'sweep_expired(text, bigint, bigint, bigint)']::regprocedure[]) AND a.grantee NOT IN (0, old.proowner)
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', g.f, g.who);
    END LOOP;
END $$;
-- +goose StatementEnd
DROP FUNCTION next_due(timestamptz, text[]), fail_due(timestamptz[], bigint[], text, text), move_due(timestamptz, bigint, bigint, text[], boolean), recover_leased(text, bigint, bigint), sweep_expired(text, bigint, bigint, bigint);

-- +goose StatementBegin
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN
        SELECT p.oid FROM pg_proc p
        WHERE p.pronamespace = quote_ident(current_schema())::regnamespace AND p.proname IN ('create_queue', 'grant_new_queue', 'inbox_tables', 'claim_messages',
            'settle_claims', 'body_json', 'header_value', 'read_traffic', 'forget_history', 'next_due', 'fail_due', 'move_due', 'recover_leased',
            'sweep_expired')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
    FOR f IN
        SELECT p.oid FROM pg_proc p WHERE p.pronamespace = quote_ident(current_schema())::regnamespace AND p.proconfig @> ARRAY['standard_conforming_strings=on']
    LOOP
        EXECUTE format('ALTER FUNCTION %s RESET standard_conforming_strings', f);
    END LOOP;
END $$;
-- +goose StatementEnd
