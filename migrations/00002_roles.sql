-- Who may do what: privileges for other roles than the owner of the schema. A role has a message, wherever it lies, if
-- it has the table of the message's queue; what moves messages of all queues runs as the owner.

-- +goose Up

CREATE TABLE ready (
    seq        bigint,
    id         uuid,
    sent_at    timestamptz,
    expires_at timestamptz,
    attempt    smallint,
    type       text,
    headers    json,
    body       bytea
);
COMMENT ON TABLE ready IS 'Pattern of the queues'' tables, always empty: the privileges on it are given on every queue that is made.';
COMMENT ON COLUMN ready.seq IS 'As in every queue.';
COMMENT ON COLUMN ready.id IS 'As in every queue.';
COMMENT ON COLUMN ready.sent_at IS 'As in every queue.';
COMMENT ON COLUMN ready.expires_at IS 'As in every queue.';
COMMENT ON COLUMN ready.attempt IS 'As in every queue.';
COMMENT ON COLUMN ready.type IS 'As in every queue.';
COMMENT ON COLUMN ready.headers IS 'As in every queue.';
COMMENT ON COLUMN ready.body IS 'As in every queue.';

-- +goose StatementBegin
CREATE FUNCTION queue_allows(queue text, privilege text) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    tab regclass := coalesce(to_regclass(quote_ident('q_' || queue)), 'ready'::regclass);
BEGIN
    IF privilege = 'DELETE' THEN -- which columns do not have
        RETURN has_table_privilege(tab, privilege);
    END IF;
    RETURN has_any_column_privilege(tab, privilege);
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION queue_allows IS 'Whether the current role has a privilege (SELECT, INSERT or DELETE) on a queue''s table or on some of its columns; of a queue that is gone: on all queues.';

-- The owner is not asked: row security does not apply to it.
CREATE POLICY readable ON delayed FOR SELECT USING (queue_allows(queue, 'SELECT'));
CREATE POLICY writable ON delayed FOR ALL USING (queue_allows(queue, 'DELETE')) WITH CHECK (queue_allows(queue, 'INSERT'));
CREATE POLICY readable ON leased FOR SELECT USING (queue_allows(queue, 'SELECT'));
CREATE POLICY writable ON leased FOR ALL USING (queue_allows(queue, 'DELETE')) WITH CHECK (queue_allows(queue, 'INSERT'));
CREATE POLICY readable ON error FOR SELECT USING (queue_allows(queue, 'SELECT'));
CREATE POLICY writable ON error FOR ALL USING (queue_allows(queue, 'DELETE')) WITH CHECK (queue_allows(queue, 'INSERT'));
CREATE POLICY readable ON subscription FOR SELECT USING (true);
CREATE POLICY writable ON subscription FOR ALL USING (queue_allows(queue, 'DELETE'));
CREATE POLICY readable ON queue FOR SELECT USING (queue_allows(name, 'SELECT'));
CREATE POLICY writable ON queue FOR ALL USING (queue_allows(name, 'DELETE'));
ALTER TABLE delayed ENABLE ROW LEVEL SECURITY;
ALTER TABLE leased ENABLE ROW LEVEL SECURITY;
ALTER TABLE error ENABLE ROW LEVEL SECURITY;
ALTER TABLE subscription ENABLE ROW LEVEL SECURITY;
ALTER TABLE queue ENABLE ROW LEVEL SECURITY;

-- What publishes stores messages in queues that the publisher may know nothing of, and what an operator makes must belong
-- to the owner, or nobody else could use it.
ALTER FUNCTION publish(text, json, json, interval, interval, uuid) SECURITY DEFINER;
ALTER FUNCTION publish_batch(uuid[], text[], text[], bytea[], interval[]) SECURITY DEFINER;
ALTER FUNCTION create_queue(text) SECURITY DEFINER;
ALTER FUNCTION drop_queue(text, boolean) SECURITY DEFINER;

-- +goose StatementBegin
CREATE FUNCTION publish_delayed(id uuid, type text, headers text, body bytea, due_at timestamptz, expires_in interval) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
BEGIN
    INSERT INTO delayed (due_at, id, expires_at, why, queue, type, headers, body)
    SELECT greatest(publish_delayed.due_at, clock_timestamp()), publish_delayed.id, clock_timestamp() + expires_in, 'delay', s.queue,
        publish_delayed.type, publish_delayed.headers::json, publish_delayed.body
    FROM subscription s WHERE s.type = publish_delayed.type;
    RETURN CASE WHEN publish_delayed.due_at < clock_timestamp() + interval '2 seconds' THEN 'sqlq_' || 'delayed'::regclass::oid END;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION publish_delayed IS 'Publishes a checked event of the Go library to the queues subscribed at this moment, for a later time. Returns the channel to notify after the commit when it is due soon, else null.';

-- +goose StatementBegin
CREATE FUNCTION next_due(after timestamptz) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
BEGIN
    RETURN (SELECT d.due_at FROM delayed d WHERE d.due_at >= after ORDER BY d.due_at LIMIT 1);
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION next_due IS 'When the first delayed message from a due time on is due; null: there is none.';

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
COMMENT ON FUNCTION fail_due IS 'Moves delayed messages whose queue is gone to the error table, so that they neither block others nor vanish.';

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
        tab := to_regclass(quote_ident('q_' || queue));
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
COMMENT ON FUNCTION move_due IS 'Moves delayed messages that are due, at most so many and from a due time on, to their queues. Returns for each queue how many, the latest due time, and the channel to notify after the commit.';

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
        tab := to_regclass(quote_ident('q_' || queue));
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
COMMENT ON FUNCTION recover_leased IS 'Puts messages whose instance has ended back into their queues, in order, and marks them: one of them may have killed the process. Returns for each queue how many, and the channel to notify after the commit.';

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
COMMENT ON FUNCTION sweep_expired IS 'Removes messages of a queue whose time to live has passed: reads at most so many rows after a seq. Returns how many it removed and up to which seq it read; 0: to the end.';

-- +goose StatementBegin
CREATE FUNCTION grant_new_queue() RETURNS trigger
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
COMMENT ON FUNCTION grant_new_queue IS 'Gives the privileges on the table ready on the table of a new queue.';
CREATE TRIGGER grant_new_queue AFTER INSERT ON queue FOR EACH ROW EXECUTE FUNCTION grant_new_queue();

-- +goose StatementBegin
CREATE FUNCTION grant_role(role name, kind text, queues text[] DEFAULT NULL, bodies boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    on_queue text;    -- what the kind has on its queues' tables
    others   text[];  -- and besides: privilege and table
    calls    text[];  -- and which functions it may call
    q        text;
    word     text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = grant_role.role) THEN
        RAISE undefined_object USING MESSAGE = format('role %s does not exist', coalesce(to_json(role::text)::text, 'null')),
            HINT = 'Everybody at once (PUBLIC) cannot be granted anything.';
    END IF;
    CASE kind
    WHEN 'producer' THEN
        on_queue := 'INSERT (id, expires_at, type, headers, body)';
        others := ARRAY['INSERT (due_at, id, expires_at, why, queue, type, headers, body) ON delayed'];
        calls := ARRAY['send', 'publish', 'publish_batch', 'publish_delayed', 'put_message', 'check_message', 'uuid_v7'];
    WHEN 'consumer' THEN
        on_queue := 'SELECT, INSERT, DELETE, UPDATE (seq)'; -- of one column: enough to lock a row
        others := ARRAY['INSERT ON delayed', 'SELECT, INSERT, DELETE, UPDATE (attempt, headers) ON leased', 'INSERT ON error',
            'SELECT, INSERT, DELETE, UPDATE (heartbeat_at, drained_at, crashed_at) ON instance', 'SELECT, INSERT ON subscription',
            'SELECT, UPDATE (low) ON queue'];
        calls := ARRAY['next_due', 'move_due', 'recover_leased', 'sweep_expired'];
    WHEN 'operator' THEN
        on_queue := 'SELECT, INSERT, DELETE, UPDATE (seq)';
        others := ARRAY['SELECT, INSERT, DELETE, UPDATE (seq) ON delayed', 'SELECT, DELETE ON leased',
            'SELECT, DELETE, UPDATE (status, archived_at) ON error', 'SELECT ON instance', 'SELECT, INSERT, DELETE ON subscription',
            'SELECT ON queue', 'SELECT ON SEQUENCE delayed_seq_seq', 'SELECT ON SEQUENCE error_seq_seq'];
        calls := ARRAY['send', 'publish', 'publish_batch', 'publish_delayed', 'put_message', 'check_message', 'uuid_v7'];
        IF queues IS NULL THEN
            calls := calls || ARRAY['create_queue', 'drop_queue'];
        END IF;
    WHEN 'viewer' THEN
        on_queue := 'SELECT (seq, id, sent_at, expires_at, attempt, type)';
        others := ARRAY['SELECT (due_at, seq, id, sent_at, expires_at, attempt, why, queue, type) ON delayed',
            'SELECT (lease, instance, queue, seq, leased_at, id, sent_at, expires_at, attempt, type) ON leased',
            'SELECT (seq, id, status, queue, endpoint, host, type, attempts, replays, sent_at, expires_at, first_failed_at, failed_at,
                archived_at, error_type, message, fingerprint) ON error',
            'SELECT ON instance', 'SELECT ON subscription', 'SELECT ON queue', 'SELECT ON SEQUENCE delayed_seq_seq', 'SELECT ON SEQUENCE error_seq_seq'];
        IF bodies THEN
            on_queue := 'SELECT';
            others := others || ARRAY['SELECT ON delayed', 'SELECT ON leased', 'SELECT ON error'];
        END IF;
    ELSE
        RAISE invalid_parameter_value USING
            MESSAGE = format('kind of role %s is not known', coalesce(to_json(kind)::text, 'null')),
            HINT = 'Use producer, consumer, operator or viewer.';
    END CASE;
    IF bodies IS DISTINCT FROM false AND kind <> 'viewer' THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'bodies are granted to viewers only', HINT = 'Consumers and operators see them anyway; producers do not.';
    END IF;
    calls := calls || ARRAY['queue_table', 'queue_asleep', 'queue_lock_key', 'queue_allows'];

    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), role);
    EXECUTE format('GRANT SELECT ON goose_db_version TO %I', role);
    FOREACH word IN ARRAY others LOOP
        EXECUTE format('GRANT %s TO %I', word, role);
    END LOOP;
    FOREACH word IN ARRAY calls LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %I TO %I', word, role);
    END LOOP;
    IF queues IS NULL THEN
        EXECUTE format('GRANT %s ON ready TO %I', on_queue, role);
    END IF;
    PERFORM pg_advisory_xact_lock(1936813169, queue_lock_key('queue'::regclass)); -- no queue is made meanwhile
    FOR q IN SELECT n FROM unnest(coalesce(queues, ARRAY(SELECT name FROM queue))) n LOOP
        EXECUTE format('GRANT %s ON %s TO %I', on_queue, queue_table(q), role);
        IF on_queue LIKE 'SELECT%' THEN
            EXECUTE format('GRANT SELECT ON SEQUENCE %I TO %I', 's_' || q, role);
        END IF;
    END LOOP;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION grant_role IS 'Lets a role be producer (sends, publishes, reads nothing), consumer (runs endpoints), operator (everything on messages; of all queues: makes and drops them) or viewer (counts and lists, no headers and bodies unless bodies), of the named queues or, with null, of all, those included that are made later. A role may be several.';

-- +goose StatementBegin
CREATE FUNCTION revoke_role(role name, queues text[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    q text;
    f regprocedure;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = revoke_role.role) THEN
        RAISE undefined_object USING MESSAGE = format('role %s does not exist', coalesce(to_json(role::text)::text, 'null')),
            HINT = 'Everybody at once (PUBLIC) cannot be granted anything.';
    END IF;
    PERFORM pg_advisory_xact_lock(1936813169, queue_lock_key('queue'::regclass));
    FOR q IN SELECT n FROM unnest(coalesce(queues, ARRAY(SELECT name FROM queue))) n LOOP
        EXECUTE format('REVOKE ALL ON %s FROM %I', queue_table(q), role);
        EXECUTE format('REVOKE ALL ON SEQUENCE %I FROM %I', 's_' || q, role);
    END LOOP;
    IF queues IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('REVOKE ALL ON ready, queue, delayed, leased, error, subscription, instance, goose_db_version FROM %I', role);
    EXECUTE format('REVOKE ALL ON SEQUENCE delayed_seq_seq, error_seq_seq FROM %I', role);
    FOR f IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = quote_ident(current_schema())::regnamespace
        AND p.proconfig @> ARRAY['search_path=' || quote_ident(current_schema()) || ', pg_temp'] LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %I', f, role);
    END LOOP;
    EXECUTE format('REVOKE USAGE ON SCHEMA %I FROM %I', current_schema(), role);
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
        WHERE p.pronamespace = quote_ident(current_schema())::regnamespace AND p.proname IN ('queue_allows', 'publish_delayed', 'next_due',
            'time_or_null', 'fail_due', 'move_due', 'recover_leased', 'sweep_expired', 'grant_new_queue', 'grant_role', 'revoke_role')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
END $$;
-- +goose StatementEnd

-- +goose Down

DROP FUNCTION revoke_role, grant_role, sweep_expired, recover_leased, move_due, fail_due, time_or_null, next_due, publish_delayed;
DROP TRIGGER grant_new_queue ON queue;
DROP FUNCTION grant_new_queue;
ALTER FUNCTION publish(text, json, json, interval, interval, uuid) SECURITY INVOKER;
ALTER FUNCTION publish_batch(uuid[], text[], text[], bytea[], interval[]) SECURITY INVOKER;
ALTER FUNCTION create_queue(text) SECURITY INVOKER;
ALTER FUNCTION drop_queue(text, boolean) SECURITY INVOKER;
ALTER TABLE delayed DISABLE ROW LEVEL SECURITY;
ALTER TABLE leased DISABLE ROW LEVEL SECURITY;
ALTER TABLE error DISABLE ROW LEVEL SECURITY;
ALTER TABLE subscription DISABLE ROW LEVEL SECURITY;
ALTER TABLE queue DISABLE ROW LEVEL SECURITY;
DROP POLICY readable ON delayed;
DROP POLICY writable ON delayed;
DROP POLICY readable ON leased;
DROP POLICY writable ON leased;
DROP POLICY readable ON error;
DROP POLICY writable ON error;
DROP POLICY readable ON subscription;
DROP POLICY writable ON subscription;
DROP POLICY readable ON queue;
DROP POLICY writable ON queue;
DROP FUNCTION queue_allows;
DROP TABLE ready;
