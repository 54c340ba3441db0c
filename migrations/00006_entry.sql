-- What may enter: limits that hold for whoever writes a message, bookkeeping that no sender can write, times that fit, and
-- event types that a role may subscribe to.

-- +goose Up

-- A queue's table says itself what a message that has just been sent can be, because producers may insert and COPY. What was
-- sent before this statement, or was tried, is moved, and may have the library's bookkeeping: sent_at and attempt tell, which
-- producers cannot write.
-- Before the patterns, which cost a microsecond, strpos looks for what they could find.
-- +goose StatementBegin
CREATE FUNCTION limit_new_queue() RETURNS trigger
LANGUAGE plpgsql VOLATILE
SET standard_conforming_strings = on
AS $$
BEGIN
    EXECUTE format($q$
        ALTER TABLE %I.%I ADD CONSTRAINT sender_limits CHECK (sent_at < statement_timestamp() OR attempt <> 0
            OR octet_length(type) <= 200 AND octet_length(body) <= 1072693248 AND (expires_at IS NULL OR isfinite(expires_at))
            AND (headers IS NULL OR octet_length(headers::text) <= 524288
                AND (strpos(headers::text, '"sqlq-crashes"') = 0 AND strpos(headers::text, '"sqlq-replays"') = 0 AND strpos(headers::text, '"sqlq-waited"') = 0
                    AND strpos(headers::text, '"sqlq-first-failed-at"') = 0 AND strpos(headers::text, E'\\u00') = 0
                    OR headers::text !~ E'("sqlq-(crashes|replays|first-failed-at|waited)|\\\\u00[^"]*)"\\s*:')))$q$,
        current_schema(), 'q_' || NEW.name);
    RETURN NULL;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION limit_new_queue IS 'Bounds what may be sent to a new queue: type, body and headers in bytes, a finite expires_at, none of the headers that the library keeps books in.';
CREATE TRIGGER limit_new_queue AFTER INSERT ON queue FOR EACH ROW EXECUTE FUNCTION limit_new_queue();

-- +goose StatementBegin
DO $$
DECLARE
    q text;
BEGIN
    FOR q IN SELECT name FROM queue ORDER BY name LOOP
        EXECUTE format($q$
            ALTER TABLE %I.%I ADD CONSTRAINT sender_limits CHECK (sent_at < statement_timestamp() OR attempt <> 0
                OR octet_length(type) <= 200 AND octet_length(body) <= 1072693248 AND (expires_at IS NULL OR isfinite(expires_at))
                AND (headers IS NULL OR octet_length(headers::text) <= 524288
                    AND (strpos(headers::text, '"sqlq-crashes"') = 0 AND strpos(headers::text, '"sqlq-replays"') = 0 AND strpos(headers::text, '"sqlq-waited"') = 0
                        AND strpos(headers::text, '"sqlq-first-failed-at"') = 0 AND strpos(headers::text, E'\\u00') = 0
                        OR headers::text !~ E'("sqlq-(crashes|replays|first-failed-at|waited)|\\\\u00[^"]*)"\\s*:')))$q$,
            current_schema(), 'q_' || q);
    END LOOP;
END $$;
-- +goose StatementEnd

UPDATE delayed SET due_at = CASE WHEN due_at > now() THEN '9999-12-31Z' ELSE now() END WHERE due_at IN ('infinity', '-infinity');
ALTER TABLE delayed ADD CONSTRAINT due_at_finite CHECK (isfinite(due_at));
ALTER TABLE delayed ADD CONSTRAINT sender_limits CHECK (sent_at < statement_timestamp() OR attempt <> 0
    OR octet_length(type) <= 200 AND octet_length(body) <= 1072693248 AND (expires_at IS NULL OR isfinite(expires_at))
    AND (headers IS NULL OR octet_length(headers::text) <= 524288
        AND (strpos(headers::text, '"sqlq-crashes"') = 0 AND strpos(headers::text, '"sqlq-replays"') = 0 AND strpos(headers::text, '"sqlq-waited"') = 0
            AND strpos(headers::text, '"sqlq-first-failed-at"') = 0 AND strpos(headers::text, E'\\u00') = 0
            OR headers::text !~ E'("sqlq-(crashes|replays|first-failed-at|waited)|\\\\u00[^"]*)"\\s*:')));

-- A role may be consumer of one queue and producer of another. What consumers may write, which says how far a message has come,
-- it may for its own queue only.
ALTER POLICY writable ON delayed WITH CHECK (queue_allows(queue, 'INSERT')
    AND (attempt = 0 AND why = 'delay' AND error IS NULL AND sent_at >= statement_timestamp() OR queue_allows(queue, 'DELETE')));
ALTER POLICY writable ON leased WITH CHECK (queue_allows(queue, 'DELETE'));
ALTER POLICY writable ON error WITH CHECK (queue_allows(queue, 'DELETE'));

ALTER TABLE instance ADD expired bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN instance.expired IS 'Messages dropped unhandled since it began, because their time to live had passed, as of the last heartbeat.';
COMMENT ON COLUMN instance.handled IS 'Messages handled, or dropped as duplicates, since it began, as of the last heartbeat.';

CREATE TABLE subscriber (
    role  name NOT NULL,
    queue text NOT NULL DEFAULT '',
    type  text NOT NULL DEFAULT '',
    PRIMARY KEY (role, queue, type)
);
COMMENT ON TABLE subscriber IS 'Which event types a role may subscribe which queues to. Whoever subscribes a queue that it receives from reads those events. grant_role writes it.';
COMMENT ON COLUMN subscriber.role IS 'The role that was granted.';
COMMENT ON COLUMN subscriber.queue IS 'A queue; empty: each that the role has.';
COMMENT ON COLUMN subscriber.type IS 'An event type; empty: any.';
-- What roles could do before.
INSERT INTO subscriber (role)
SELECT DISTINCT pg_get_userbyid(a.grantee) FROM pg_class c, aclexplode(c.relacl) a
WHERE c.oid = 'subscription'::regclass AND a.privilege_type = 'INSERT' AND a.grantee NOT IN (0, c.relowner);

-- +goose StatementBegin
CREATE FUNCTION may_subscribe(queue text, type text) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM subscriber s JOIN pg_roles r ON r.rolname = s.role
        WHERE s.queue IN ('', may_subscribe.queue) AND s.type IN ('', may_subscribe.type) AND pg_has_role(r.oid, 'USAGE'));
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION may_subscribe IS 'Whether the current role may subscribe a queue to an event type, if it has the queue.';
ALTER POLICY writable ON subscription WITH CHECK (queue_allows(queue, 'DELETE') AND may_subscribe(queue, type));

-- +goose StatementBegin
CREATE FUNCTION check_times(delay interval, expires_in interval) RETURNS void
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    -- By their seconds: compared as intervals, 100 years are 36,000 days.
    IF delay < interval '0' OR expires_in <= interval '0'
        OR greatest(extract(epoch FROM delay), extract(epoch FROM expires_in)) > extract(epoch FROM interval '100 years') THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('delay %s or time to live %s is out of range', delay, expires_in),
            HINT = 'Both are counted from now and end within a hundred years.';
    END IF;
    IF extract(epoch FROM delay) >= extract(epoch FROM expires_in) THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('the message would expire before it is ready: delay %s, time to live %s', delay, expires_in),
            HINT = 'The time to live counts from the send: make it longer than the delay.';
    END IF;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION check_times IS 'Refuses a delay or a time to live that the Go library would refuse.';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION check_message(type text, body json, headers json) RETURNS json
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    bad    text;
    stored json;
    most   bigint;
BEGIN
    IF type IS NULL OR type !~ '^[A-Za-z0-9][A-Za-z0-9._/:-]{0,199}$' THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('message type %s is not allowed', coalesce(to_json(type)::text, 'null')),
            HINT = 'Use 1 to 200 ASCII letters, digits and . _ / : -, beginning with a letter or digit.';
    END IF;
    IF body IS NULL THEN
        RAISE null_value_not_allowed USING MESSAGE = 'a message has a body', HINT = 'An empty one is the JSON value null: ''null''.';
    END IF;
    most := max_body();
    IF octet_length(body::text) > most THEN
        RAISE program_limit_exceeded USING
            MESSAGE = format('the body has %s bytes, the limit is %s', octet_length(body::text), most),
            HINT = 'Send a reference to the content, or raise the limit: SET sqlq.max_body = ''64MB'', for everybody ALTER DATABASE ... SET. Receivers must read as much: Config.MaxBody.';
    END IF;
    IF headers IS NULL THEN
        RETURN NULL;
    END IF;
    IF json_typeof(headers) <> 'object' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'headers are not a JSON object', HINT = 'For example: ''{"tenant": "north"}''.';
    END IF;
    SELECT h.key INTO bad FROM json_each(headers) h
    WHERE h.key !~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$' OR lower(h.key) LIKE 'sqlq-%' OR json_typeof(h.value) <> 'string' LIMIT 1;
    IF FOUND THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('header %s is not allowed', to_json(bad)),
            HINT = 'Names: 1 to 100 ASCII letters, digits, dots, hyphens and underscores, not beginning with sqlq-. Values: strings.';
    END IF;
    IF (SELECT count(*) > 100 OR sum(octet_length(h.key) + octet_length(h.value)) > 65536 FROM json_each_text(headers) h) THEN
        RAISE program_limit_exceeded USING
            MESSAGE = 'the headers are too large',
            HINT = 'At most 100 of them, and 64 KiB of names and values together: put the rest into the body.';
    END IF;
    SELECT ('{' || string_agg(to_json(h.key) || ':' || to_json(h.value), ',' ORDER BY h.key COLLATE "C") || '}')::json
    INTO stored FROM jsonb_each_text(headers::jsonb) h;
    RETURN stored;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION max_body() RETURNS bigint
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN coalesce(pg_size_bytes(nullif(current_setting('sqlq.max_body', true), '')), 16777216);
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION max_body IS 'The largest body that the SQL functions take, in bytes: 16 MiB, unless the setting sqlq.max_body says otherwise.';

-- A queue's table is named with its schema: where it is gone, or goes while its lock is waited for, a bare name would reach a
-- table of that name in the caller's pg_temp, and what runs as the owner would run the caller's triggers.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION put_message(queue text, id uuid, type text, headers json, body bytea, delay interval, expires_in interval) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    tab     regclass := queue_table(put_message.queue);
    channel text;
BEGIN
    IF delay > interval '0' THEN
        INSERT INTO delayed (due_at, id, expires_at, why, queue, type, headers, body)
        VALUES (clock_timestamp() + delay, put_message.id, clock_timestamp() + expires_in, 'delay', put_message.queue,
            put_message.type, put_message.headers, put_message.body);
        -- The mover looks once a second by itself.
        IF delay < interval '2 seconds' THEN
            channel := 'sqlq_' || 'delayed'::regclass::oid;
        END IF;
    ELSE
        EXECUTE format('INSERT INTO %I.%I (id, expires_at, type, headers, body) VALUES ($1, clock_timestamp() + $2, $3, $4, $5)',
            current_schema(), 'q_' || put_message.queue)
        USING put_message.id, expires_in, put_message.type, put_message.headers, put_message.body;
        channel := queue_asleep(tab);
    END IF;
    IF channel IS NOT NULL AND current_setting('sqlq.notify', true) IS DISTINCT FROM 'off' THEN
        PERFORM pg_notify(channel, '');
    END IF;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION send(queue text, type text, body json, headers json DEFAULT NULL, delay interval DEFAULT NULL, expires_in interval DEFAULT NULL, id uuid DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    message_id uuid := coalesce(send.id, uuid_v7());
BEGIN
    PERFORM check_times(delay, expires_in);
    PERFORM put_message(send.queue, message_id, send.type, check_message(send.type, send.body, send.headers),
        convert_to(send.body::text, 'UTF8'), delay, expires_in);
    RETURN message_id;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION send_many(queue text, type text, bodies json[], headers json DEFAULT NULL, delay interval DEFAULT NULL, expires_in interval DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    tab     regclass := queue_table(send_many.queue);
    missing bigint;
    channel text;
    sent    bigint;
    most    bigint := max_body();
    large   record;
BEGIN
    PERFORM check_times(delay, expires_in);
    SELECT b.n INTO missing FROM unnest(bodies) WITH ORDINALITY b (body, n) WHERE b.body IS NULL ORDER BY b.n LIMIT 1;
    IF bodies IS NULL OR missing IS NOT NULL THEN
        RAISE null_value_not_allowed USING
            MESSAGE = coalesce('a message has a body, and number ' || missing || ' has none', 'there are no bodies'),
            HINT = 'An empty one is the JSON value null: ''null''.';
    END IF;
    SELECT b.n, octet_length(b.body::text) AS size INTO large
    FROM unnest(bodies) WITH ORDINALITY b (body, n) WHERE octet_length(b.body::text) > most ORDER BY b.n LIMIT 1;
    IF FOUND THEN
        RAISE program_limit_exceeded USING
            MESSAGE = format('body number %s has %s bytes, the limit is %s', large.n, large.size, most),
            HINT = 'Send a reference to the content, or raise the limit: SET sqlq.max_body = ''64MB'', for everybody ALTER DATABASE ... SET. Receivers must read as much: Config.MaxBody.';
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
            INSERT INTO %I.%I (id, expires_at, type, headers, body)
            SELECT %1$I.uuid_v7(), clock_timestamp() + $1, $2, $3, convert_to(b.body::text, 'UTF8')
            FROM unnest($4) WITH ORDINALITY b (body, n) ORDER BY b.n$q$, current_schema(), 'q_' || send_many.queue)
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

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION publish(type text, body json, headers json DEFAULT NULL, delay interval DEFAULT NULL, expires_in interval DEFAULT NULL, id uuid DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
DECLARE
    message_id uuid := coalesce(publish.id, uuid_v7());
    subscriber text;
    copies     integer := 0;
BEGIN
    PERFORM check_times(delay, expires_in);
    headers := check_message(publish.type, publish.body, publish.headers);
    FOR subscriber IN SELECT s.queue FROM subscription s WHERE s.type = publish.type ORDER BY s.queue LOOP
        -- An old snapshot shows subscriptions of queues that were dropped since.
        CONTINUE WHEN to_regclass(format('%I.%I', current_schema(), 'q_' || subscriber)) IS NULL;
        PERFORM put_message(subscriber, message_id, publish.type, headers, convert_to(publish.body::text, 'UTF8'), delay, expires_in);
        copies := copies + 1;
    END LOOP;
    RETURN copies;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION publish_batch(ids uuid[], types text[], headers text[], bodies bytea[], expires_in interval[]) RETURNS TABLE (queue text, copies bigint, channel text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
BEGIN
    FOR queue IN
        SELECT s.queue FROM subscription s WHERE s.type = ANY (types) GROUP BY s.queue ORDER BY s.queue
    LOOP
        -- An old snapshot shows subscriptions of queues that were dropped since.
        CONTINUE WHEN to_regclass(format('%I.%I', current_schema(), 'q_' || queue)) IS NULL;
        EXECUTE format($q$
            INSERT INTO %1$I.%2$I (id, expires_at, type, headers, body)
            SELECT m.id, clock_timestamp() + m.expires_in, m.type, m.headers::json, m.body
            FROM unnest($1, $2, $3, $4, $5) WITH ORDINALITY AS m (id, type, headers, body, expires_in, n)
            WHERE m.type IN (SELECT s.type FROM %1$I.subscription s WHERE s.queue = %3$L)
            ORDER BY m.n$q$, current_schema(), 'q_' || queue, queue)
        USING ids, types, headers, bodies, expires_in;
        GET DIAGNOSTICS copies = ROW_COUNT;
        channel := queue_asleep(queue_table(queue));
        RETURN NEXT;
    END LOOP;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION publish_delayed(id uuid, type text, headers text, body bytea, due_at timestamptz, expires_in interval) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
BEGIN
    INSERT INTO delayed (due_at, id, expires_at, why, queue, type, headers, body)
    SELECT greatest(publish_delayed.due_at, clock_timestamp()), publish_delayed.id, clock_timestamp() + expires_in, 'delay', s.queue,
        publish_delayed.type, publish_delayed.headers::json, publish_delayed.body
    FROM subscription s
    -- An old snapshot shows subscriptions of queues that were dropped since.
    WHERE s.type = publish_delayed.type AND to_regclass(format('%I.%I', current_schema(), 'q_' || s.queue)) IS NOT NULL;
    RETURN CASE WHEN publish_delayed.due_at < clock_timestamp() + interval '2 seconds' THEN 'sqlq_' || 'delayed'::regclass::oid END;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION drop_queue(name text, force boolean DEFAULT false) RETURNS bigint
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

-- A message that is put back with bookkeeping was sent before, whatever a server whose clock is behind believes: sender_limits.
-- +goose StatementBegin
DO $$
DECLARE
    edit text[];
    def  text;
BEGIN
    FOREACH edit SLICE 1 IN ARRAY ARRAY[
        [$e$grant_messages$e$, $e$EXECUTE format('GRANT %s ON %s TO %I', on_queue, queue_table(q), role);$e$,
            $e$PERFORM queue_table(q);
        EXECUTE format('GRANT %s ON %I.%I TO %I', on_queue, current_schema(), 'q_' || q, role);$e$],
        [$e$grant_messages$e$, $e$EXECUTE format('GRANT SELECT ON SEQUENCE %I TO %I', 's_' || q, role);$e$,
            $e$EXECUTE format('GRANT SELECT ON SEQUENCE %I.%I TO %I', current_schema(), 's_' || q, role);$e$],
        [$e$revoke_messages$e$, $e$EXECUTE format('REVOKE ALL ON %s FROM %I', queue_table(q), role);$e$,
            $e$PERFORM queue_table(q);
        EXECUTE format('REVOKE ALL ON %I.%I FROM %I', current_schema(), 'q_' || q, role);$e$],
        [$e$revoke_messages$e$, $e$EXECUTE format('REVOKE ALL ON SEQUENCE %I FROM %I', 's_' || q, role);$e$,
            $e$EXECUTE format('REVOKE ALL ON SEQUENCE %I.%I FROM %I', current_schema(), 's_' || q, role);$e$],
        [$e$replay$e$, $e$INSERT INTO %s (id, sent_at,$e$,
            $e$INSERT INTO %I.%I (id, sent_at,$e$],
        [$e$replay$e$, $e$FROM gone g ORDER BY g.seq$q$, tab)$e$,
            $e$FROM gone g ORDER BY g.seq$q$, current_schema(), 'q_' || place)$e$],
        [$e$replay$e$, $e$CASE WHEN g.expires_at > clock_timestamp() THEN g.expires_at END$e$,
            $e$CASE WHEN g.expires_at > clock_timestamp() AND isfinite(g.expires_at) THEN g.expires_at END$e$],
        [$e$replay$e$, $e$SELECT g.id, g.sent_at, CASE$e$,
            $e$SELECT g.id, least(g.sent_at, statement_timestamp() - interval '1 microsecond'), CASE$e$]]
    LOOP
        def := pg_get_functiondef(edit[1]::regproc);
        ASSERT strpos(def, edit[2]) > 0, format('function %s does not say: %s', edit[1], edit[2]);
        EXECUTE replace(def, edit[2], edit[3]);
    END LOOP;
END $$;
-- +goose StatementEnd

DROP FUNCTION grant_role(name, text, text[], boolean);
-- +goose StatementBegin
CREATE FUNCTION grant_role(role name, kind text, queues text[] DEFAULT NULL, bodies boolean DEFAULT false, events text[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '10s' -- every role of the database can take the advisory lock
AS $$
DECLARE
    word text;
BEGIN
    PERFORM grant_operations(role, kind, queues, bodies);
    IF events IS NOT NULL AND kind NOT IN ('consumer', 'operator') THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'events are granted to consumers and operators only', HINT = 'Producers publish any event; viewers subscribe no queue.';
    END IF;
    FOREACH word IN ARRAY coalesce(events, '{}') LOOP
        PERFORM check_message(word, 'null', NULL);
    END LOOP;
    IF kind = 'consumer' THEN
        FOREACH word IN ARRAY ARRAY['claim_messages', 'settle_claims', 'rotate_inbox'] LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %I TO %I', word, role);
        END LOOP;
        EXECUTE format('GRANT UPDATE (expired) ON instance TO %I', role);
    END IF;
    IF kind IN ('producer', 'operator') THEN
        EXECUTE format('GRANT EXECUTE ON FUNCTION check_times, max_body TO %I', role);
    END IF;
    IF kind IN ('consumer', 'operator') THEN
        EXECUTE format('GRANT SELECT ON subscriber TO %I', role);
        EXECUTE format('GRANT EXECUTE ON FUNCTION may_subscribe TO %I', role);
        IF events IS NOT NULL THEN -- instead of what it could before, of those queues
            DELETE FROM subscriber s WHERE s.role = grant_role.role AND (queues IS NULL OR s.queue = ANY (queues));
        END IF;
        INSERT INTO subscriber (role, queue, type)
        SELECT grant_role.role, q, t FROM unnest(coalesce(queues, ARRAY[''])) q, unnest(coalesce(events, ARRAY[''])) t ON CONFLICT DO NOTHING;
    END IF;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION grant_role IS 'Lets a role be producer (sends, publishes, reads nothing), consumer (runs endpoints), operator (everything on messages; of all queues: makes and drops them) or viewer (counts and lists, no headers and bodies unless bodies), of the named queues or, with null, of all, those included that are made later. Consumers and operators may subscribe these queues to the named event types or, with null, to any, and so read those events. A role may be several.';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION revoke_role(role name, queues text[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '10s' -- every role of the database can take the advisory lock
AS $$
BEGIN
    PERFORM revoke_messages(role, queues);
    DELETE FROM subscriber s WHERE s.role = revoke_role.role AND (queues IS NULL OR s.queue = ANY (queues));
    IF queues IS NULL THEN
        EXECUTE format('REVOKE ALL ON operation, history, traffic, subscriber FROM %I', role);
    END IF;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE
    f regprocedure;
    g record;
BEGIN
    FOR f IN
        SELECT p.oid FROM pg_proc p
        WHERE p.pronamespace = quote_ident(current_schema())::regnamespace AND p.proname IN ('limit_new_queue', 'may_subscribe', 'check_times',
            'max_body', 'check_message', 'put_message', 'send', 'send_many', 'publish', 'publish_batch', 'publish_delayed', 'drop_queue',
            'grant_role', 'revoke_role')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
    FOR g IN -- roles that were granted before
        SELECT a.grantee::regrole AS role, 'EXECUTE ON FUNCTION check_times, max_body' AS what
        FROM pg_proc p, aclexplode(p.proacl) a WHERE p.oid = 'check_message'::regproc AND a.grantee NOT IN (0, p.proowner)
        UNION ALL
        SELECT a.grantee::regrole, w FROM pg_class c, aclexplode(c.relacl) a, unnest(ARRAY['SELECT ON subscriber', 'EXECUTE ON FUNCTION may_subscribe']) w
        WHERE c.oid = 'subscription'::regclass AND a.privilege_type = 'INSERT' AND a.grantee NOT IN (0, c.relowner)
        UNION ALL
        SELECT a.grantee::regrole, 'UPDATE (expired) ON instance' FROM pg_attribute t, aclexplode(t.attacl) a
        WHERE t.attrelid = 'instance'::regclass AND t.attname = 'handled' AND a.privilege_type = 'UPDATE' AND a.grantee <> 0
    LOOP
        EXECUTE format('GRANT %s TO %s', g.what, g.role);
    END LOOP;
END $$;
-- +goose StatementEnd

-- +goose Down

DROP FUNCTION grant_role(name, text, text[], boolean, text[]);
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION check_message(type text, body json, headers json) RETURNS json
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    bad    text;
    stored json;
BEGIN
    IF type IS NULL OR type !~ '^[A-Za-z0-9][A-Za-z0-9._/:-]{0,199}$' THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('message type %s is not allowed', coalesce(to_json(type)::text, 'null')),
            HINT = 'Use 1 to 200 ASCII letters, digits and . _ / : -, beginning with a letter or digit.';
    END IF;
    IF body IS NULL THEN
        RAISE null_value_not_allowed USING MESSAGE = 'a message has a body', HINT = 'An empty one is the JSON value null: ''null''.';
    END IF;
    IF headers IS NULL THEN
        RETURN NULL;
    END IF;
    IF json_typeof(headers) <> 'object' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'headers are not a JSON object', HINT = 'For example: ''{"tenant": "north"}''.';
    END IF;
    SELECT h.key INTO bad FROM json_each(headers) h
    WHERE h.key !~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$' OR lower(h.key) LIKE 'sqlq-%' OR json_typeof(h.value) <> 'string' LIMIT 1;
    IF FOUND THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('header %s is not allowed', to_json(bad)),
            HINT = 'Names: 1 to 100 ASCII letters, digits, dots, hyphens and underscores, not beginning with sqlq-. Values: strings.';
    END IF;
    IF (SELECT count(*) > 100 OR sum(octet_length(h.key) + octet_length(h.value)) > 65536 FROM json_each_text(headers) h) THEN
        RAISE program_limit_exceeded USING
            MESSAGE = 'the headers are too large',
            HINT = 'At most 100 of them, and 64 KiB of names and values together: put the rest into the body.';
    END IF;
    SELECT ('{' || string_agg(to_json(h.key) || ':' || to_json(h.value), ',' ORDER BY h.key COLLATE "C") || '}')::json
    INTO stored FROM jsonb_each_text(headers::jsonb) h;
    RETURN stored;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION put_message(queue text, id uuid, type text, headers json, body bytea, delay interval, expires_in interval) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    tab     regclass := queue_table(put_message.queue);
    channel text;
BEGIN
    IF delay > interval '0' THEN
        INSERT INTO delayed (due_at, id, expires_at, why, queue, type, headers, body)
        VALUES (clock_timestamp() + delay, put_message.id, clock_timestamp() + expires_in, 'delay', put_message.queue,
            put_message.type, put_message.headers, put_message.body);
        -- The mover looks once a second by itself.
        IF delay < interval '2 seconds' THEN
            channel := 'sqlq_' || 'delayed'::regclass::oid;
        END IF;
    ELSE
        EXECUTE format('INSERT INTO %s (id, expires_at, type, headers, body) VALUES ($1, clock_timestamp() + $2, $3, $4, $5)', tab)
        USING put_message.id, expires_in, put_message.type, put_message.headers, put_message.body;
        channel := queue_asleep(tab);
    END IF;
    IF channel IS NOT NULL AND current_setting('sqlq.notify', true) IS DISTINCT FROM 'off' THEN
        PERFORM pg_notify(channel, '');
    END IF;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION send(queue text, type text, body json, headers json DEFAULT NULL, delay interval DEFAULT NULL, expires_in interval DEFAULT NULL, id uuid DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    message_id uuid := coalesce(send.id, uuid_v7());
BEGIN
    -- By their seconds: compared as intervals, 100 years are 36,000 days.
    IF delay < interval '0' OR expires_in <= interval '0'
        OR greatest(extract(epoch FROM delay), extract(epoch FROM expires_in)) > extract(epoch FROM interval '100 years') THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('delay %s or time to live %s is out of range', delay, expires_in),
            HINT = 'Both are counted from now and end within a hundred years.';
    END IF;
    PERFORM put_message(send.queue, message_id, send.type, check_message(send.type, send.body, send.headers),
        convert_to(send.body::text, 'UTF8'), delay, expires_in);
    RETURN message_id;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION send_many(queue text, type text, bodies json[], headers json DEFAULT NULL, delay interval DEFAULT NULL, expires_in interval DEFAULT NULL) RETURNS bigint
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

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION publish(type text, body json, headers json DEFAULT NULL, delay interval DEFAULT NULL, expires_in interval DEFAULT NULL, id uuid DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
DECLARE
    message_id uuid := coalesce(publish.id, uuid_v7());
    subscriber text;
    copies     integer := 0;
BEGIN
    -- By their seconds: compared as intervals, 100 years are 36,000 days.
    IF delay < interval '0' OR expires_in <= interval '0'
        OR greatest(extract(epoch FROM delay), extract(epoch FROM expires_in)) > extract(epoch FROM interval '100 years') THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('delay %s or time to live %s is out of range', delay, expires_in),
            HINT = 'Both are counted from now and end within a hundred years.';
    END IF;
    headers := check_message(publish.type, publish.body, publish.headers);
    FOR subscriber IN SELECT s.queue FROM subscription s WHERE s.type = publish.type ORDER BY s.queue LOOP
        PERFORM put_message(subscriber, message_id, publish.type, headers, convert_to(publish.body::text, 'UTF8'), delay, expires_in);
        copies := copies + 1;
    END LOOP;
    RETURN copies;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION publish_batch(ids uuid[], types text[], headers text[], bodies bytea[], expires_in interval[]) RETURNS TABLE (queue text, copies bigint, channel text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
BEGIN
    FOR queue IN
        SELECT s.queue FROM subscription s WHERE s.type = ANY (types) GROUP BY s.queue ORDER BY s.queue
    LOOP
        EXECUTE format($q$
            INSERT INTO %I (id, expires_at, type, headers, body)
            SELECT m.id, clock_timestamp() + m.expires_in, m.type, m.headers::json, m.body
            FROM unnest($1, $2, $3, $4, $5) WITH ORDINALITY AS m (id, type, headers, body, expires_in, n)
            WHERE m.type IN (SELECT s.type FROM subscription s WHERE s.queue = %L)
            ORDER BY m.n$q$, 'q_' || queue, queue)
        USING ids, types, headers, bodies, expires_in;
        GET DIAGNOSTICS copies = ROW_COUNT;
        channel := queue_asleep(queue_table(queue));
        RETURN NEXT;
    END LOOP;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION publish_delayed(id uuid, type text, headers text, body bytea, due_at timestamptz, expires_in interval) RETURNS text
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

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION drop_queue(name text, force boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
DECLARE
    tab   regclass;
    here  bigint;
    other bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(1936813169, queue_lock_key('queue'::regclass));
    tab := queue_table(drop_queue.name);
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', tab);
    EXECUTE format('SELECT count(*) FROM %s', tab) INTO here;
    SELECT (SELECT count(*) FROM delayed d WHERE d.queue = drop_queue.name)
         + (SELECT count(*) FROM leased l WHERE l.queue = drop_queue.name) INTO other;
    IF here + other > 0 AND force IS NOT TRUE THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = format('queue %s holds %s messages', to_json(name), here + other),
            HINT = 'Let an endpoint handle them, purge the queue first, or drop it by force.';
    END IF;
    DELETE FROM delayed d WHERE d.queue = drop_queue.name;
    DELETE FROM leased l WHERE l.queue = drop_queue.name;
    DELETE FROM queue q WHERE q.name = drop_queue.name;
    EXECUTE format('DROP TABLE %s', tab);
    RETURN here + other;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION grant_role(role name, kind text, queues text[] DEFAULT NULL, bodies boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    word text;
BEGIN
    PERFORM grant_operations(role, kind, queues, bodies);
    IF kind = 'consumer' THEN
        FOREACH word IN ARRAY ARRAY['claim_messages', 'settle_claims', 'rotate_inbox'] LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %I TO %I', word, role);
        END LOOP;
    END IF;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION revoke_role(role name, queues text[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    PERFORM revoke_messages(role, queues);
    IF queues IS NULL THEN
        EXECUTE format('REVOKE ALL ON operation, history, traffic FROM %I', role);
    END IF;
END $$;
-- +goose StatementEnd

COMMENT ON FUNCTION grant_role IS 'Lets a role be producer (sends, publishes, reads nothing), consumer (runs endpoints), operator (everything on messages; of all queues: makes and drops them) or viewer (counts and lists, no headers and bodies unless bodies), of the named queues or, with null, of all, those included that are made later. A role may be several.';
-- +goose StatementBegin
DO $$
DECLARE
    edit text[];
BEGIN
    FOREACH edit SLICE 1 IN ARRAY ARRAY[
        [$e$replay$e$, $e$SELECT g.id, least(g.sent_at, statement_timestamp() - interval '1 microsecond'), CASE$e$,
            $e$SELECT g.id, g.sent_at, CASE$e$],
        [$e$replay$e$, $e$CASE WHEN g.expires_at > clock_timestamp() AND isfinite(g.expires_at) THEN g.expires_at END$e$,
            $e$CASE WHEN g.expires_at > clock_timestamp() THEN g.expires_at END$e$],
        [$e$replay$e$, $e$FROM gone g ORDER BY g.seq$q$, current_schema(), 'q_' || place)$e$,
            $e$FROM gone g ORDER BY g.seq$q$, tab)$e$],
        [$e$replay$e$, $e$INSERT INTO %I.%I (id, sent_at,$e$,
            $e$INSERT INTO %s (id, sent_at,$e$],
        [$e$revoke_messages$e$, $e$EXECUTE format('REVOKE ALL ON SEQUENCE %I.%I FROM %I', current_schema(), 's_' || q, role);$e$,
            $e$EXECUTE format('REVOKE ALL ON SEQUENCE %I FROM %I', 's_' || q, role);$e$],
        [$e$revoke_messages$e$, $e$PERFORM queue_table(q);
        EXECUTE format('REVOKE ALL ON %I.%I FROM %I', current_schema(), 'q_' || q, role);$e$,
            $e$EXECUTE format('REVOKE ALL ON %s FROM %I', queue_table(q), role);$e$],
        [$e$grant_messages$e$, $e$EXECUTE format('GRANT SELECT ON SEQUENCE %I.%I TO %I', current_schema(), 's_' || q, role);$e$,
            $e$EXECUTE format('GRANT SELECT ON SEQUENCE %I TO %I', 's_' || q, role);$e$],
        [$e$grant_messages$e$, $e$PERFORM queue_table(q);
        EXECUTE format('GRANT %s ON %I.%I TO %I', on_queue, current_schema(), 'q_' || q, role);$e$,
            $e$EXECUTE format('GRANT %s ON %s TO %I', on_queue, queue_table(q), role);$e$]]
    LOOP
        EXECUTE replace(pg_get_functiondef(edit[1]::regproc), edit[2], edit[3]);
    END LOOP;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN
        SELECT p.oid FROM pg_proc p
        WHERE p.pronamespace = quote_ident(current_schema())::regnamespace AND p.proname IN ('check_message', 'put_message', 'send', 'send_many',
            'publish', 'publish_batch', 'publish_delayed', 'drop_queue', 'grant_role', 'revoke_role')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
END $$;
-- +goose StatementEnd

DROP POLICY writable ON subscription; -- a check cannot be taken off
CREATE POLICY writable ON subscription FOR ALL USING (queue_allows(queue, 'DELETE'));
ALTER POLICY writable ON error WITH CHECK (queue_allows(queue, 'INSERT'));
ALTER POLICY writable ON leased WITH CHECK (queue_allows(queue, 'INSERT'));
ALTER POLICY writable ON delayed WITH CHECK (queue_allows(queue, 'INSERT'));
DROP FUNCTION may_subscribe, check_times, max_body;
DROP TABLE subscriber;
ALTER TABLE instance DROP expired;
COMMENT ON COLUMN instance.handled IS 'Messages settled as complete since it began, as of the last heartbeat.';
ALTER TABLE delayed DROP CONSTRAINT sender_limits, DROP CONSTRAINT due_at_finite;
DROP TRIGGER limit_new_queue ON queue;
DROP FUNCTION limit_new_queue;
-- +goose StatementBegin
DO $$
DECLARE
    q text;
BEGIN
    FOR q IN SELECT name FROM queue ORDER BY name LOOP
        EXECUTE format('ALTER TABLE %I.%I DROP CONSTRAINT sender_limits', current_schema(), 'q_' || q);
    END LOOP;
END $$;
-- +goose StatementEnd
