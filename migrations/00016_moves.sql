-- Moves: what the leading process does for the messages of all queues, as the owner. Due messages and those of dead
-- processes go back to their queues, in rounds that are limited in bytes too. No queue, message or setting of
-- the caller blocks the others.

-- +goose Up

-- +goose StatementBegin
CREATE FUNCTION time_or_null(value text) RETURNS timestamptz
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN value::timestamptz;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION time_or_null IS 'The time that a text says; null: it says none.';

-- A row that cannot be moved does not block the others. Infinite due times, in either direction, are only compared, never
-- used in arithmetic.
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
COMMENT ON FUNCTION next_due IS 'When the first delayed message from a due time on is due, and its queue, some queues left aside; nulls: there is none.';

-- +goose StatementBegin
CREATE FUNCTION fail_due(due timestamptz[], seqs bigint[], kind text, failure text) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    -- The headers are read as text, as rewrite_headers does; of two of one name the last counts.
    WITH taken AS (
        DELETE FROM delayed d USING unnest(due, seqs) AS k (due_at, seq)
        WHERE d.due_at = k.due_at AND d.seq = k.seq RETURNING d.*
    ), known AS (
        SELECT t.*, json_typeof(t.headers) = 'object' AS listed,
            substring(t.headers::text FROM '.*[{,]\s*"sqlq-first-failed-at":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z)"') AS first_failed,
            substring(t.headers::text FROM '.*[{,]\s*"sqlq-replays":"(\d{1,9})"') AS replays
        FROM taken t
    )
    INSERT INTO error (id, queue, endpoint, host, type, headers, body, attempts, replays, sent_at, expires_at,
        first_failed_at, error_type, message, fingerprint)
    SELECT id, queue, queue, '', type,
        rewrite_headers(headers, removed => '{sqlq-first-failed-at,sqlq-replays,sqlq-crashes,sqlq-waited}'), body,
        attempt, CASE WHEN listed THEN coalesce(replays::integer, 0) ELSE 0 END, sent_at, CASE WHEN isfinite(expires_at) THEN expires_at END,
        coalesce(CASE WHEN listed THEN time_or_null(first_failed) END, clock_timestamp()),
        CASE kind WHEN 'no-queue' THEN 'NoQueue' ELSE 'QueueRefuses' END,
        coalesce(failure, 'queue ' || to_json(queue) || ' does not exist any more: create it and replay, or delete the message'), kind
    FROM known ORDER BY due_at, seq;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION fail_due IS 'Moves delayed messages whose queue is gone, kind no-queue, or does not take them, kind queue-refuses, to the error table, so that they neither block others nor vanish.';

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
            ) $q$, place) || moved_into(queue, 'taken m ORDER BY m.due_at, m.seq');
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
COMMENT ON FUNCTION move_due IS 'Moves delayed messages that are due to their queues, those due first: at most so many and so many bytes, but at least one; from a due time on; those of all queues but some, or, apart, of those queues only. One that its queue does not take goes to the error table, when it is alone. Returns for each queue how many, their bytes, whether there was more than the bytes allow, the latest due time, and the channel to notify after the commit. None moved: somebody has the table for long.';

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
                %2$s
            )
            SELECT (SELECT count(*) FROM picked), (SELECT count(*) FROM read) > (SELECT count(*) FROM picked) OR (SELECT count(*) FROM read) >= $2$q$,
            place, moved_into(queue, 'taken m ORDER BY m.leased_at, m.seq',
                format($q$CASE WHEN m.headers::text ~ '[{,]\s*"sqlq-crashes":"' THEN m.headers ELSE %I.rewrite_headers(m.headers, '"sqlq-crashes":"0"') END$q$, place)));
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
                    ) $q$, place) || moved_into(queue, 'taken m', due_at => 'clock_timestamp()') USING queue;
                GET DIAGNOSTICS recovered = ROW_COUNT;
            END;
        END IF;
        channel := queue_asleep(to_regclass(format('%I.%I', place, 'q_' || queue)));
        RETURN NEXT;
    END LOOP;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION recover_leased IS 'Puts messages whose instance has ended back into their queues, in order, and marks them: one of them may have killed the process. Of each queue, or of one only, at most so many and so many bytes, but at least one. Returns for each queue how many, whether there may be more, and the channel to notify after the commit. With 0 it moves none, and only says which queues have any.';

INSERT INTO privilege (kind, privilege, sort, object) VALUES
    ('consumer', 'EXECUTE', 'function', 'next_due'),
    ('consumer', 'EXECUTE', 'function', 'move_due'),
    ('consumer', 'EXECUTE', 'function', 'recover_leased'),
    ('operator', 'EXECUTE', 'function', 'move_due'), -- these for what doctor mends
    ('operator', 'EXECUTE', 'function', 'recover_leased');

CALL finish_migration('time_or_null', 'next_due', 'fail_due', 'move_due', 'recover_leased');

-- +goose Down

DROP FUNCTION recover_leased, move_due, fail_due, next_due, time_or_null;
CALL finish_migration();
