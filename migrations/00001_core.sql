-- The tables and SQL functions of sqlq. Every name is unqualified: the migration runs with the wanted schema as
-- search_path, and each function is pinned to that schema at the end.

-- +goose Up

CREATE TABLE queue (
    name       text PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$'),
    created_at timestamptz NOT NULL DEFAULT now(),
    low        bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE queue IS 'The registry of queues. The ready messages of queue X are in the table q_X.';
COMMENT ON COLUMN queue.name IS 'Name of the queue, and of the endpoint that handles its messages.';
COMMENT ON COLUMN queue.created_at IS 'When create_queue made it.';
COMMENT ON COLUMN queue.low IS 'No message of the queue has a seq up to this. Receivers raise it now and then, and start looking there, so that a starting process need not step over what vacuum could not remove.';

CREATE TABLE delayed (
    due_at     timestamptz NOT NULL,
    seq        bigint GENERATED ALWAYS AS IDENTITY,
    id         uuid NOT NULL,
    sent_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    attempt    smallint NOT NULL DEFAULT 0,
    why        text NOT NULL CHECK (why IN ('delay', 'retry')),
    queue      text NOT NULL,
    type       text NOT NULL,
    headers    json,
    body       bytea NOT NULL,
    error      text,
    PRIMARY KEY (due_at, seq)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0,
    vacuum_truncate = false, toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 10000,
    toast.autovacuum_vacuum_cost_delay = 0, toast.vacuum_truncate = false);
COMMENT ON TABLE delayed IS 'Messages that wait for their time: deferred by the sender, or to be retried.';
COMMENT ON COLUMN delayed.due_at IS 'When the message moves to its queue, by the clock of the database; never before the insert.';
COMMENT ON COLUMN delayed.seq IS 'Order among messages of one due time.';
COMMENT ON COLUMN delayed.id IS 'Message id, given by the sender.';
COMMENT ON COLUMN delayed.sent_at IS 'When the message was first sent.';
COMMENT ON COLUMN delayed.expires_at IS 'After this time the message is not handled any more; null: never.';
COMMENT ON COLUMN delayed.attempt IS 'Attempts already made.';
COMMENT ON COLUMN delayed.why IS 'delay: the sender asked for it; retry: the last attempt failed.';
COMMENT ON COLUMN delayed.queue IS 'The queue it will move to.';
COMMENT ON COLUMN delayed.type IS 'Message type.';
COMMENT ON COLUMN delayed.headers IS 'Headers: a JSON object of strings; null: none.';
COMMENT ON COLUMN delayed.body IS 'Message body, as the sender encoded it.';
COMMENT ON COLUMN delayed.error IS 'For a retry: what the last attempt failed with.';

CREATE TABLE leased (
    lease      bigint GENERATED ALWAYS AS IDENTITY,
    instance   integer NOT NULL,
    queue      text NOT NULL,
    seq        bigint NOT NULL,
    leased_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    id         uuid NOT NULL,
    sent_at    timestamptz NOT NULL,
    expires_at timestamptz,
    attempt    smallint NOT NULL,
    type       text NOT NULL,
    headers    json,
    body       bytea NOT NULL,
    PRIMARY KEY (instance, lease)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0,
    vacuum_truncate = false, toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 10000,
    toast.autovacuum_vacuum_cost_delay = 0, toast.vacuum_truncate = false);
COMMENT ON TABLE leased IS 'Messages in the hands of a running instance: slow ones, and all of them for a while after a crash. The heartbeat of the instance keeps them; when it dies they go back to their queue.';
COMMENT ON COLUMN leased.lease IS 'Names this lease; a message that is leased again gets another one.';
COMMENT ON COLUMN leased.instance IS 'The instance that handles the message.';
COMMENT ON COLUMN leased.queue IS 'The queue it came from.';
COMMENT ON COLUMN leased.seq IS 'Its seq in that queue.';
COMMENT ON COLUMN leased.leased_at IS 'When the instance took it.';
COMMENT ON COLUMN leased.id IS 'Message id, given by the sender.';
COMMENT ON COLUMN leased.sent_at IS 'When the message was first sent.';
COMMENT ON COLUMN leased.expires_at IS 'After this time the message is not handled any more; null: never.';
COMMENT ON COLUMN leased.attempt IS 'Attempts that have ended, and those in which a process died of the message.';
COMMENT ON COLUMN leased.type IS 'Message type.';
COMMENT ON COLUMN leased.headers IS 'Headers: a JSON object of strings; null: none.';
COMMENT ON COLUMN leased.body IS 'Message body, as the sender encoded it.';

CREATE TABLE error (
    seq             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id              uuid NOT NULL,
    status          text NOT NULL DEFAULT 'failed' CHECK (status IN ('failed', 'archived')),
    queue           text NOT NULL,
    endpoint        text NOT NULL,
    host            text NOT NULL,
    type            text NOT NULL,
    headers         json,
    body            bytea NOT NULL,
    attempts        integer NOT NULL,
    replays         integer NOT NULL DEFAULT 0,
    sent_at         timestamptz NOT NULL,
    expires_at      timestamptz,
    first_failed_at timestamptz NOT NULL,
    failed_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    archived_at     timestamptz,
    error_type      text NOT NULL,
    message         text NOT NULL,
    chain           text[] NOT NULL DEFAULT '{}',
    stack           text,
    fingerprint     text NOT NULL
);
CREATE INDEX error_status_queue ON error (status, queue, seq);
CREATE INDEX error_fingerprint ON error (fingerprint, seq);
CREATE INDEX error_id ON error (id);
COMMENT ON TABLE error IS 'Failed messages. A row is the message: it is here and nowhere else until it is replayed or deleted.';
COMMENT ON COLUMN error.seq IS 'Number of the failed message, for operators.';
COMMENT ON COLUMN error.id IS 'Message id, given by the sender.';
COMMENT ON COLUMN error.status IS 'failed: waits for an operator; archived: kept, and left out of replays.';
COMMENT ON COLUMN error.queue IS 'The queue it came from, and goes back to when replayed.';
COMMENT ON COLUMN error.endpoint IS 'The endpoint whose handling failed.';
COMMENT ON COLUMN error.host IS 'The host on which the last attempt ran.';
COMMENT ON COLUMN error.type IS 'Message type.';
COMMENT ON COLUMN error.headers IS 'Headers: a JSON object of strings; null: none.';
COMMENT ON COLUMN error.body IS 'Message body, as the sender encoded it.';
COMMENT ON COLUMN error.attempts IS 'Attempts made since it was sent or last replayed.';
COMMENT ON COLUMN error.replays IS 'How often it was replayed before it failed this time.';
COMMENT ON COLUMN error.sent_at IS 'When the message was first sent.';
COMMENT ON COLUMN error.expires_at IS 'The message''s own time to live. It does not end its stay here.';
COMMENT ON COLUMN error.first_failed_at IS 'When an attempt failed for the first time.';
COMMENT ON COLUMN error.failed_at IS 'When the last attempt failed.';
COMMENT ON COLUMN error.archived_at IS 'When it was archived; null: it is not.';
COMMENT ON COLUMN error.error_type IS 'Go type of the innermost error, or the kind of failure.';
COMMENT ON COLUMN error.message IS 'Text of the error.';
COMMENT ON COLUMN error.chain IS 'The wrapped errors, outermost first, each as type: text.';
COMMENT ON COLUMN error.stack IS 'Stack trace of a panic; null: it was not one.';
COMMENT ON COLUMN error.fingerprint IS 'Equal for failures of one fault: message type, error type and text without numbers, ids and addresses.';

CREATE TABLE subscription (
    type       text NOT NULL,
    queue      text NOT NULL REFERENCES queue (name) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (type, queue)
);
COMMENT ON TABLE subscription IS 'Which queue gets a copy of which event type.';
COMMENT ON COLUMN subscription.type IS 'Event type.';
COMMENT ON COLUMN subscription.queue IS 'The subscribed queue.';
COMMENT ON COLUMN subscription.created_at IS 'Events published after this row was committed reach the queue.';

CREATE TABLE instance (
    id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint     text NOT NULL,
    host         text NOT NULL,
    pid          integer NOT NULL,
    version      text NOT NULL,
    concurrency  integer NOT NULL,
    session_lock boolean NOT NULL,
    lease_time   interval NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    heartbeat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    drained_at   timestamptz,
    crashed_at   timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE instance IS 'Running processes of the endpoints, and for a day those that ended.';
COMMENT ON COLUMN instance.id IS 'Number of the instance; a process that runs several endpoints has one for each.';
COMMENT ON COLUMN instance.endpoint IS 'The endpoint whose messages it handles.';
COMMENT ON COLUMN instance.host IS 'Host name.';
COMMENT ON COLUMN instance.pid IS 'Process id on that host.';
COMMENT ON COLUMN instance.version IS 'Version of the program, from its build information.';
COMMENT ON COLUMN instance.concurrency IS 'How many messages it handles at a time.';
COMMENT ON COLUMN instance.session_lock IS 'Whether its connections hold the advisory lock that shows that it lives.';
COMMENT ON COLUMN instance.lease_time IS 'A heartbeat older than this means that it is dead.';
COMMENT ON COLUMN instance.started_at IS 'When it began.';
COMMENT ON COLUMN instance.heartbeat_at IS 'When it last said that it lives.';
COMMENT ON COLUMN instance.drained_at IS 'When it ended in order; null: it runs, or died.';
COMMENT ON COLUMN instance.crashed_at IS 'When another instance found it dead and gave its messages back.';

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
BEGIN
    IF pg_try_advisory_lock(1936813169, queue_lock_key(queue_table)) THEN
        PERFORM pg_advisory_unlock(1936813169, queue_lock_key(queue_table));
        RETURN NULL;
    END IF;
    RETURN 'sqlq_' || queue_table::oid;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION queue_asleep IS 'The channel to notify when a receiver of the queue sleeps, else null. Call it after the insert.';

-- +goose StatementBegin
CREATE FUNCTION queue_table(queue text) RETURNS regclass
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    found regclass := to_regclass(quote_ident('q_' || queue));
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
CREATE FUNCTION create_queue(name text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
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
COMMENT ON FUNCTION create_queue IS 'Makes a queue. True: made; false: it was there already.';

-- +goose StatementBegin
CREATE FUNCTION drop_queue(name text, force boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql VOLATILE
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
COMMENT ON FUNCTION drop_queue IS 'Removes a queue and its subscriptions. Refuses while it holds messages, ready, delayed or leased, unless forced; returns how many it removed. Failed messages stay in the error table.';

-- +goose StatementBegin
CREATE FUNCTION uuid_v7() RETURNS uuid
LANGUAGE sql VOLATILE
AS $$
    -- A random UUID with the milliseconds since 1970 in its first six bytes, and its version nibble raised from 4 to 7.
    SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
        PLACING substring(int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
        52, 1), 53, 1), 'hex')::uuid
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION uuid_v7 IS 'A new message id: a UUID of version 7 (RFC 9562).';

-- +goose StatementBegin
CREATE FUNCTION check_message(type text, body json, headers json) RETURNS json
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
COMMENT ON FUNCTION check_message IS 'Refuses a message that the Go library would refuse; returns its headers as they are stored.';

-- +goose StatementBegin
CREATE FUNCTION put_message(queue text, id uuid, type text, headers json, body bytea, delay interval, expires_in interval) RETURNS void
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
COMMENT ON FUNCTION put_message IS 'Stores a checked message in a queue or among the delayed, and wakes a receiver that sleeps. SET sqlq.notify = off leaves the waking out, for transactions that will be prepared (two-phase commit).';

-- +goose StatementBegin
CREATE FUNCTION send(queue text, type text, body json, headers json DEFAULT NULL, delay interval DEFAULT NULL, expires_in interval DEFAULT NULL, id uuid DEFAULT NULL) RETURNS uuid
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
COMMENT ON FUNCTION send IS 'Sends a message to a queue, as part of the running transaction. Returns its id.';

-- +goose StatementBegin
CREATE FUNCTION publish(type text, body json, headers json DEFAULT NULL, delay interval DEFAULT NULL, expires_in interval DEFAULT NULL, id uuid DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql VOLATILE
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
COMMENT ON FUNCTION publish IS 'Publishes an event to every subscribed queue, as part of the running transaction. Returns the number of copies; an event without subscribers is stored nowhere.';

-- +goose StatementBegin
CREATE FUNCTION publish_batch(ids uuid[], types text[], headers text[], bodies bytea[], expires_in interval[]) RETURNS TABLE (queue text, copies bigint, channel text)
LANGUAGE plpgsql VOLATILE
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
COMMENT ON FUNCTION publish_batch IS 'Publishes the checked events of the Go library to the queues subscribed at this moment. Returns, for each queue, the copies stored and the channel to notify after the commit (null: nobody sleeps).';

-- Each function runs with its own schema as search_path, whoever calls it, and nobody may call one without a grant.
-- +goose StatementBegin
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN
        SELECT p.oid FROM pg_proc p
        WHERE p.pronamespace = quote_ident(current_schema())::regnamespace AND p.proname IN ('queue_lock_key', 'queue_asleep', 'queue_table',
            'create_queue', 'drop_queue', 'uuid_v7', 'check_message', 'put_message', 'send', 'publish', 'publish_batch')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
END $$;
-- +goose StatementEnd

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
DROP FUNCTION publish_batch, publish, send, put_message, check_message, uuid_v7, drop_queue, create_queue, queue_table, queue_asleep, queue_lock_key;
DROP TABLE instance, subscription, error, leased, delayed, queue;
