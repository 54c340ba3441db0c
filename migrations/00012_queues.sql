-- Queues: the registry, the template of their tables, and which roles have them. A role has a message, wherever that is stored, if
-- it has the table of the message's queue. Functions that move messages of all queues run as the owner.

-- +goose Up

CREATE TABLE queue (
    name       text PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$'),
    created_at timestamptz NOT NULL DEFAULT now(),
    low        bigint NOT NULL DEFAULT 0,
    paused_at  timestamptz,
    paused_by  text
);
COMMENT ON TABLE queue IS 'The registry of queues. The ready messages of queue X are in the table q_X.';
COMMENT ON COLUMN queue.name IS 'Name of the queue, and of the endpoint that handles its messages.';
COMMENT ON COLUMN queue.created_at IS 'When create_queue made it.';
COMMENT ON COLUMN queue.low IS 'No message of the queue has a seq up to this. Receivers raise it now and then, and start looking there, so that a starting process need not step over what vacuum could not remove.';
COMMENT ON COLUMN queue.paused_at IS 'Since when no message of the queue is handed out; null: it is not paused. Sending goes on.';
COMMENT ON COLUMN queue.paused_by IS 'Who paused it, and why.';

-- Part of sender_limits, and a function because the server reads the text of a check anew for each statement that inserts: written out
-- it cost 20 us a statement more. It is called for each row that has headers, by whoever inserts, so it is open to PUBLIC. To pin it
-- with settings of its own would cost more than its work; so it names everything with its schema, operators too, and its literals mean
-- the same whatever the caller has set. The patterns cost a microsecond, so strpos first checks whether they can match. They match whole
-- names only, because within a string a quote is escaped and so never follows a brace or a comma; of names that are written with
-- escapes, those of letters that nobody has to escape.
-- +goose StatementBegin
CREATE FUNCTION sender_headers(headers json) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    written pg_catalog.text := headers;
BEGIN
    RETURN pg_catalog.octet_length(written) OPERATOR(pg_catalog.<=) 524288
        AND (pg_catalog.strpos(written, '"sqlq-crashes"') OPERATOR(pg_catalog.=) 0
            AND pg_catalog.strpos(written, '"sqlq-replays"') OPERATOR(pg_catalog.=) 0
            AND pg_catalog.strpos(written, '"sqlq-waited"') OPERATOR(pg_catalog.=) 0
            AND pg_catalog.strpos(written, '"sqlq-first-failed-at"') OPERATOR(pg_catalog.=) 0
            AND pg_catalog.strpos(written, E'\\u00') OPERATOR(pg_catalog.=) 0
            OR written OPERATOR(pg_catalog.!~)
                E'[{,]\\s*"(sqlq-(crashes|replays|first-failed-at|waited)|([a-z-]*\\\\u00(2[Dd]|6[0-9A-Fa-f]|7[0-9Aa]))+[a-z-]*)"\\s*:');
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION sender_headers IS 'Whether a message that has just been sent may have these headers: not too large, and none of those in which the library keeps what happened to a message. The constraint sender_limits asks it.';

-- Fixed-length columns first, so that no row pays for padding; eight columns, so that the null bitmap fits in the row header. A
-- ninth would cost every row eight bytes.
--
-- sender_limits: a queue's table itself limits what a new message may contain, because producers may INSERT and COPY.
-- A message that was sent before this statement, or was tried, is being moved, and may have the library's bookkeeping headers. sent_at
-- and attempt show that; producers cannot write them.
CREATE TABLE ready (
    seq        bigint NOT NULL,
    id         uuid NOT NULL,
    sent_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    attempt    smallint NOT NULL DEFAULT 0,
    type       text NOT NULL,
    headers    json,
    body       bytea NOT NULL,
    CONSTRAINT sender_limits CHECK (sent_at < statement_timestamp() OR attempt <> 0
        OR octet_length(type) <= 200 AND octet_length(body) <= 1072693248 AND (expires_at IS NULL OR isfinite(expires_at))
        AND (headers IS NULL OR sender_headers(headers)))
);
COMMENT ON TABLE ready IS 'Pattern of the queues'' tables, always empty: a queue''s table is made like it, and the privileges on it are given on every queue that is made.';
COMMENT ON COLUMN ready.seq IS 'Order of arrival.';
COMMENT ON COLUMN ready.id IS 'Message id, given by the sender.';
COMMENT ON COLUMN ready.sent_at IS 'When the message was first sent.';
COMMENT ON COLUMN ready.expires_at IS 'After this time the message is not handled any more; null: never.';
COMMENT ON COLUMN ready.attempt IS 'Attempts already made.';
COMMENT ON COLUMN ready.type IS 'Message type.';
COMMENT ON COLUMN ready.headers IS 'Headers: a JSON object of strings; null: none.';
COMMENT ON COLUMN ready.body IS 'Message body, as the sender encoded it.';

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

-- +goose StatementBegin
CREATE FUNCTION queue_lock_key(queue_table regclass) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT (queue_table::oid::bigint - 2147483648)::integer $$;
-- +goose StatementEnd
COMMENT ON FUNCTION queue_lock_key IS 'Second key of the advisory lock (1936813169, key) that sleeping receivers of a queue hold shared.';

-- +goose StatementBegin
CREATE FUNCTION queue_asleep(queue_table regclass) RETURNS text
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key integer := (queue_table::oid::bigint - 2147483648)::integer; -- queue_lock_key, which would cost as much as the rest
BEGIN
    -- In one expression: a statement can be cancelled between two statements of a function, and inside a function that it
    -- calls, but not between two built-in functions of an expression. So the lock cannot stay with the session.
    RETURN CASE WHEN pg_try_advisory_lock(1936813169, key) THEN CASE WHEN pg_advisory_unlock(1936813169, key) THEN NULL END
        ELSE 'sqlq_' || queue_table::oid END;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION queue_asleep IS 'The channel to notify when a receiver of the queue sleeps, else null. Call it after the insert.';

-- +goose StatementBegin
CREATE FUNCTION queue_table(queue text) RETURNS regclass
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    found regclass := to_regclass(quote_ident(current_schema()) || '.' || quote_ident('q_' || queue));
BEGIN
    IF found IS NULL THEN
        RAISE undefined_table USING
            MESSAGE = format('queue %s does not exist in schema %I', to_json(queue), current_schema()),
            HINT = format('Create it: sqlq queue create %s, or SELECT %I.create_queue(%L).', queue, current_schema(), queue);
    END IF;
    RETURN found;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION queue_table IS 'The table of a queue; an error that says what to do where there is none.';

-- +goose StatementBegin
CREATE FUNCTION queue_allows(queue text, privilege text) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $$
DECLARE
    tab regclass := coalesce(to_regclass(quote_ident(current_schema()) || '.' || quote_ident('q_' || queue)), 'ready'::regclass);
BEGIN
    IF privilege = 'DELETE' THEN -- which columns do not have
        RETURN has_table_privilege(tab, privilege);
    END IF;
    RETURN has_any_column_privilege(tab, privilege);
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION queue_allows IS 'Whether the current role has a privilege (SELECT, INSERT or DELETE) on a queue''s table or on some of its columns; of a queue that is gone: on all queues.';

-- Checking the privileges for each row is too expensive with millions of rows. This checks all queues, once per
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

-- The owner is not checked: row security does not apply to it.
CREATE POLICY readable ON queue FOR SELECT USING (queue_allows(name, 'SELECT'));
CREATE POLICY writable ON queue FOR ALL USING (queue_allows(name, 'DELETE'));
ALTER TABLE queue ENABLE ROW LEVEL SECURITY;
CREATE POLICY readable ON traffic FOR SELECT USING (queue_allows(queue, 'SELECT'));
ALTER TABLE traffic ENABLE ROW LEVEL SECURITY;

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
        EXECUTE format('GRANT %s %s ON %I.%I TO %I', g.privilege, g.columns, current_schema(), 'q_' || NEW.name, g.grantee);
        IF g.privilege = 'SELECT' THEN
            EXECUTE format('GRANT SELECT ON SEQUENCE %I.%I TO %I', current_schema(), 's_' || NEW.name, g.grantee);
        END IF;
    END LOOP;
    RETURN NULL;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION grant_new_queue IS 'Gives the privileges on the table ready on the table of a new queue.';
CREATE TRIGGER grant_new_queue AFTER INSERT ON queue FOR EACH ROW EXECUTE FUNCTION grant_new_queue();

-- A name that is resolved when a statement runs must be that of a table in this schema, or of none. Unqualified it could resolve to
-- one in the caller's pg_temp after the queue has been dropped: the snapshot may be older, or the statement may have waited for
-- the drop. A function that runs as the owner would then fill that table, and run the caller's triggers as the owner.
-- +goose StatementBegin
CREATE FUNCTION create_queue(name text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET lock_timeout = '10s' -- every role of the database can take the advisory lock
AS $$
DECLARE
    place text := current_schema();
    tab   text := 'q_' || name;
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
    -- The key and the sequence are named apart from the tables, or queue "x_pkey" would collide with queue "x".
    EXECUTE format($q$
        CREATE TABLE %1$I.%2$I (
            LIKE %1$I.ready INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS,
            CONSTRAINT %4$I PRIMARY KEY (seq)
        ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
            autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_scale_factor = 0,
            autovacuum_analyze_threshold = 1000000, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = false,
            toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 10000,
            toast.autovacuum_vacuum_cost_delay = 0, toast.vacuum_truncate = false);
        ALTER TABLE %1$I.%2$I ALTER seq ADD GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME %1$I.%3$I)$q$, place, tab, 's_' || name, 'k_' || name);
    EXECUTE format('COMMENT ON TABLE %I.%I IS %L', place, tab,
        format('Ready messages of queue %s. Rows are inserted and deleted, never updated.', name));
    INSERT INTO queue (name) VALUES (create_queue.name);
    -- Endpoints that run already look for the new table.
    IF current_setting('sqlq.notify', true) IS DISTINCT FROM 'off' THEN
        PERFORM pg_notify('sqlq_' || 'queue'::regclass::oid, '');
    END IF;
    RETURN true;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION create_queue IS 'Makes a queue. True: made; false: it was there already.';

-- +goose StatementBegin
CREATE FUNCTION drop_queue(name text, force boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET lock_timeout = '5s' -- so that the tries below can have their own, and the caller's comes back
AS $$
DECLARE
    place  text := current_schema();
    tab    text := 'q_' || drop_queue.name;
    begun  timestamptz := clock_timestamp();
    last   boolean;
    locked boolean;
    here   bigint;
    other  bigint;
    holds  text;
BEGIN
    PERFORM queue_table(drop_queue.name);
    LOOP
        -- Whoever sends stands behind a lock that is waited for. So it is waited for a moment at a time, and everything is given
        -- back in between; the last time so long that an autovacuum gives way.
        last := clock_timestamp() > begun + interval '5 seconds';
        PERFORM set_config('lock_timeout', CASE WHEN NOT last THEN '100ms' ELSE
            least(extract(epoch FROM current_setting('deadlock_timeout')::interval) * 1000 + 200, 3000)::bigint || 'ms' END, true);
        BEGIN
            PERFORM queue_table(drop_queue.name);
            FOREACH locked IN ARRAY ARRAY[false, true] LOOP
                -- A queue that is not empty is refused before anybody has to wait.
                CONTINUE WHEN NOT locked AND force;
                IF locked THEN
                    EXECUTE format('LOCK TABLE %I.%I IN ACCESS EXCLUSIVE MODE', place, tab);
                    -- Behind the table's: whoever sends and then makes a queue would else wait in a circle with this.
                    PERFORM set_config('lock_timeout', '100ms', true);
                    PERFORM pg_advisory_xact_lock(1936813169, queue_lock_key('queue'::regclass));
                END IF;
                EXECUTE format('SELECT count(*) FROM %I.%I', place, tab) INTO here;
                SELECT (SELECT count(*) FROM delayed d WHERE d.queue = drop_queue.name)
                     + (SELECT count(*) FROM leased l WHERE l.queue = drop_queue.name) INTO other;
                IF here + other > 0 AND force IS NOT TRUE THEN
                    RAISE object_not_in_prerequisite_state USING
                        MESSAGE = format('queue %s holds %s messages', to_json(name), here + other),
                        HINT = 'Let an endpoint handle them, purge the queue first, or drop it by force.';
                END IF;
            END LOOP;
            -- The snapshot of such a transaction is older than the lock. A constraint is checked against what is there now.
            IF force IS NOT TRUE AND current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
                BEGIN
                    EXECUTE format('ALTER TABLE %I.%I ADD CHECK (false)', place, tab);
                EXCEPTION WHEN check_violation THEN
                    RAISE object_not_in_prerequisite_state USING
                        MESSAGE = format('queue %s holds messages that this transaction does not see, because they came after it began', to_json(name)),
                        HINT = 'Let an endpoint handle them, purge the queue first, or drop it by force.';
                END;
            END IF;
            DELETE FROM delayed d WHERE d.queue = drop_queue.name;
            DELETE FROM leased l WHERE l.queue = drop_queue.name;
            DELETE FROM granted d WHERE d.queue = drop_queue.name;
            DELETE FROM queue q WHERE q.name = drop_queue.name;
            EXECUTE format('DROP TABLE %I.%I', place, tab);
            RETURN here + other;
        EXCEPTION WHEN lock_not_available THEN
            IF last THEN
                SELECT string_agg(DISTINCT l.pid::text, ', ') INTO holds FROM pg_locks l
                WHERE l.granted AND l.relation = to_regclass(format('%I.%I', place, tab)) AND l.pid <> pg_backend_pid();
                RAISE lock_not_available USING
                    MESSAGE = format('queue %s is in use%s', to_json(name), coalesce(': process ' || holds || ' of the server has its table', '')),
                    HINT = 'A transaction that sent to it, or handles its messages, goes on for long. End it, or try again; nobody has waited for this meanwhile.';
            END IF;
        END;
        PERFORM pg_sleep(0.05 + random() * 0.1);
    END LOOP;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION drop_queue IS 'Removes a queue and its subscriptions. Refuses while it holds messages, ready, delayed or leased, unless forced; returns how many it removed. Failed messages stay in the error table.';

-- +goose StatementBegin
CREATE FUNCTION arrived(queue text) RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    numbers regclass := to_regclass(format('%I.%I', current_schema(), 's_' || queue));
BEGIN
    -- Of some versions of PostgreSQL the function below answers whoever may not know with an error, of others with null.
    IF NOT has_sequence_privilege(numbers, 'SELECT, USAGE') THEN
        RAISE insufficient_privilege USING MESSAGE = format('permission denied for sequence %I', 's_' || queue);
    END IF;
    RETURN coalesce(pg_sequence_last_value(numbers), 0);
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION arrived IS 'The highest number that messages of a queue were given, also those of transactions that have not committed: how many have arrived since it was made, if none was skipped. 0: none yet, or there is no such queue.';

-- +goose StatementBegin
CREATE FUNCTION backlog(queue text) RETURNS bigint
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    tab   regclass := queue_table(backlog.queue);
    first bigint := coalesce((SELECT q.low FROM queue q WHERE q.name = backlog.queue), 0);
    last  bigint := arrived(backlog.queue);
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
CREATE FUNCTION read_traffic() RETURNS void
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
            last := arrived(q.name);
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
COMMENT ON FUNCTION read_traffic IS 'Takes a reading of what has arrived in the queues. A queue in which nothing arrived since two readings is left alone.';

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
COMMENT ON FUNCTION sweep_expired IS 'Removes messages of a queue whose time to live has passed: reads at most so many rows after a seq, and removes at most so many bytes, but at least one message. Returns how many it removed, up to which seq it came, 0: to the end, and whether the bytes kept it from reading on.';

INSERT INTO privilege (kind, privilege, sort, object, columns) VALUES
    ('producer', 'INSERT', 'queue', '', '{id,expires_at,type,headers,body}'),
    ('consumer', 'SELECT', 'queue', '', '{}'),
    ('consumer', 'INSERT', 'queue', '', '{}'),
    ('consumer', 'DELETE', 'queue', '', '{}'),
    ('consumer', 'UPDATE', 'queue', '', '{seq}'), -- of one column: enough to lock a row
    ('operator', 'SELECT', 'queue', '', '{}'),
    ('operator', 'INSERT', 'queue', '', '{}'),
    ('operator', 'DELETE', 'queue', '', '{}'),
    ('operator', 'UPDATE', 'queue', '', '{seq}'),
    ('viewer', 'SELECT', 'queue', '', '{seq,id,sent_at,expires_at,attempt,type}'),
    ('consumer', 'SELECT', 'table', 'queue', '{}'),
    ('consumer', 'UPDATE', 'table', 'queue', '{low}'),
    ('operator', 'SELECT', 'table', 'queue', '{}'),
    ('operator', 'UPDATE', 'table', 'queue', '{paused_at,paused_by}'),
    ('operator', 'SELECT', 'table', 'traffic', '{}'),
    ('viewer', 'SELECT', 'table', 'queue', '{}'),
    ('viewer', 'SELECT', 'table', 'traffic', '{}');
INSERT INTO privilege (kind, privilege, sort, columns, given) VALUES ('viewer', 'SELECT', 'queue', '{}', 'bodies');
INSERT INTO privilege (kind, privilege, sort, object, given) VALUES
    ('operator', 'EXECUTE', 'function', 'create_queue', 'all queues'),
    ('operator', 'EXECUTE', 'function', 'drop_queue', 'all queues');
INSERT INTO privilege (kind, privilege, sort, object) SELECT k, 'EXECUTE', 'function', f FROM (VALUES
    ('every', '{queue_table,queue_asleep,queue_lock_key,queue_allows,queues_apart}'::text[]), -- row security asks the last two
    ('consumer', '{arrived,backlog,read_traffic,sweep_expired}'),
    ('operator', '{arrived,backlog}'),
    ('viewer', '{arrived,backlog}')) v (k, functions), unnest(functions) f;

CALL finish_migration('queue_lock_key', 'queue_asleep', 'queue_table', 'queue_allows', 'queues_apart', 'grant_new_queue', 'create_queue', 'drop_queue',
    'arrived', 'backlog', 'read_traffic', 'sweep_expired');

-- +goose Down

-- +goose StatementBegin
DO $$
DECLARE
    q text;
BEGIN
    FOR q IN SELECT name FROM queue LOOP
        EXECUTE format('DROP TABLE %I', 'q_' || q);
    END LOOP;
END $$;
-- +goose StatementEnd
DROP TRIGGER grant_new_queue ON queue;
DROP TABLE traffic, queue, ready;
DROP FUNCTION sweep_expired, read_traffic, backlog, arrived, drop_queue, create_queue, grant_new_queue, queues_apart, queue_allows, queue_table, queue_asleep,
    queue_lock_key, sender_headers;
DELETE FROM privilege WHERE sort = 'queue';
CALL finish_migration();
