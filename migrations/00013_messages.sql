-- Messages that are not ready (delayed, leased, failed), and sending.

-- +goose Up

CREATE TABLE delayed (
    due_at     timestamptz NOT NULL,
    seq        bigint GENERATED ALWAYS AS IDENTITY,
    id         uuid NOT NULL,
    sent_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    attempt    smallint NOT NULL DEFAULT 0,
    why        text NOT NULL CHECK (why IN ('delay', 'retry', 'timeout', 'schedule')),
    queue      text NOT NULL,
    type       text NOT NULL,
    headers    json,
    body       bytea NOT NULL,
    error      text,
    PRIMARY KEY (due_at, seq),
    CONSTRAINT due_at_finite CHECK (isfinite(due_at))
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
COMMENT ON COLUMN delayed.why IS 'delay: the sender asked for it; retry: the last attempt failed; timeout: a process waits for it; schedule: it comes again and again.';
COMMENT ON COLUMN delayed.queue IS 'The queue it will move to.';
COMMENT ON COLUMN delayed.type IS 'Message type.';
COMMENT ON COLUMN delayed.headers IS 'Headers: a JSON object of strings; null: none.';
COMMENT ON COLUMN delayed.body IS 'Message body, as the sender encoded it.';
COMMENT ON COLUMN delayed.error IS 'For a retry: what the last attempt failed with.';

-- Like the constraint of the queues' tables.
-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE 'ALTER TABLE delayed ADD CONSTRAINT sender_limits '
        || (SELECT pg_get_constraintdef(c.oid) FROM pg_constraint c WHERE c.conrelid = 'ready'::regclass AND c.conname = 'sender_limits');
END $$;
-- +goose StatementEnd

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
CREATE INDEX error_id ON error (id);
-- One index for each kind of filter, and all in the order of failure: lists and batches continue from a position, and do not read the
-- rows between two matching messages. The status comes first although few messages are archived: the planner judges by the
-- first column how well an index correlates with the order of the table, and would otherwise scan millions of rows by time alone.
CREATE INDEX error_status_time ON error (status, failed_at, seq);
CREATE INDEX error_status_queue ON error (status, queue, failed_at, seq);
CREATE INDEX error_status_type ON error (status, type, failed_at, seq);
CREATE INDEX error_status_group ON error (status, fingerprint, failed_at, seq);
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

-- A role may be a consumer of one queue and a producer of another. The columns that only consumers may write, which record the progress
-- of a message, it may write for its own queue only.
CREATE POLICY readable ON delayed FOR SELECT USING ((queue = ANY ((SELECT queues_apart('SELECT'))::text[])) <> (SELECT queue_allows(NULL, 'SELECT')));
CREATE POLICY writable ON delayed FOR ALL USING ((queue = ANY ((SELECT queues_apart('DELETE'))::text[])) <> (SELECT queue_allows(NULL, 'DELETE')))
    WITH CHECK (queue_allows(queue, 'INSERT')
        AND (attempt = 0 AND why = 'delay' AND error IS NULL AND sent_at >= statement_timestamp() OR queue_allows(queue, 'DELETE')));
CREATE POLICY readable ON leased FOR SELECT USING (queue_allows(queue, 'SELECT'));
CREATE POLICY writable ON leased FOR ALL USING (queue_allows(queue, 'DELETE')) WITH CHECK (queue_allows(queue, 'DELETE'));
CREATE POLICY readable ON error FOR SELECT USING ((queue = ANY ((SELECT queues_apart('SELECT'))::text[])) <> (SELECT queue_allows(NULL, 'SELECT')));
CREATE POLICY writable ON error FOR ALL USING ((queue = ANY ((SELECT queues_apart('DELETE'))::text[])) <> (SELECT queue_allows(NULL, 'DELETE')))
    WITH CHECK (queue_allows(queue, 'DELETE'));
ALTER TABLE delayed ENABLE ROW LEVEL SECURITY;
ALTER TABLE leased ENABLE ROW LEVEL SECURITY;
ALTER TABLE error ENABLE ROW LEVEL SECURITY;

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
CREATE FUNCTION max_body() RETURNS bigint
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN coalesce(pg_size_bytes(nullif(current_setting('sqlq.max_body', true), '')), 16777216);
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION max_body IS 'The largest body that the SQL functions take, in bytes: 16 MiB, unless the setting sqlq.max_body says otherwise.';

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
CREATE FUNCTION check_message(type text, body json, headers json, key text DEFAULT NULL, correlation_id text DEFAULT NULL, reply_to text DEFAULT NULL) RETURNS json
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
    IF octet_length(key) NOT BETWEEN 1 AND 200 OR octet_length(correlation_id) NOT BETWEEN 1 AND 1000 THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('key of %s bytes or correlation id of %s bytes is not allowed', octet_length(key), octet_length(correlation_id)),
            HINT = 'A key has 1 to 200 bytes, a correlation id 1 to 1,000. Null is none.';
    END IF;
    IF reply_to !~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$' THEN
        RAISE invalid_name USING
            MESSAGE = format('queue name %s is not allowed to be replied to', to_json(reply_to)),
            HINT = 'Name a queue: 1 to 60 ASCII letters, digits, dots, hyphens and underscores, beginning with a letter or digit.';
    END IF;
    IF headers IS NULL AND num_nonnulls(key, correlation_id, reply_to) = 0 THEN
        RETURN NULL;
    END IF;
    IF json_typeof(headers) <> 'object' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'headers are not a JSON object', HINT = 'For example: ''{"tenant": "north"}''.';
    END IF;
    SELECT h.key INTO bad FROM json_each(headers) h
    WHERE octet_length(h.key) NOT BETWEEN 1 AND 200 OR h.key ~ '^[Ss][Qq][Ll][Qq]-' OR json_typeof(h.value) <> 'string' LIMIT 1;
    IF FOUND THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('header %s is not allowed', to_json(bad)),
            HINT = 'Names: 1 to 200 bytes, not beginning with sqlq-. Values: strings.';
    END IF;
    IF (SELECT count(*) > 100 OR sum(octet_length(h.key) + octet_length(h.value)) > 65536 FROM json_each_text(headers) h) THEN
        RAISE program_limit_exceeded USING
            MESSAGE = 'the headers are too large',
            HINT = 'At most 100 of them, and 64 KiB of names and values together: put the rest into the body.';
    END IF;
    SELECT ('{' || string_agg(to_json(h.name) || ':' || to_json(h.value), ',' ORDER BY h.name COLLATE "C") || '}')::json
    INTO stored FROM (
        SELECT u.key, u.value FROM jsonb_each_text(headers::jsonb) u
        UNION ALL
        SELECT * FROM (VALUES ('sqlq-key', check_message.key), ('sqlq-correlation-id', check_message.correlation_id),
            ('sqlq-reply-to', 'q:' || check_message.reply_to)) o (name, value) WHERE o.value IS NOT NULL
    ) h (name, value);
    RETURN stored;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION check_message IS 'Refuses a message that the Go library would refuse; returns its headers as they are stored, those of the library for a key, a correlation id and a queue to reply to among them.';

-- The columns of a message are listed once for sending and once for moving, in statements that these functions build.
-- The statements qualify each table with its schema: if a queue is gone, or is dropped while they wait for its lock, a bare name could
-- resolve to a table in the caller's pg_temp, and a function that runs as the owner would run the caller's triggers.
-- +goose StatementBegin
CREATE FUNCTION sent_into(queue text, source text, due_at text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    columns CONSTANT text := 'id, expires_at, type, headers, body';
    message CONSTANT text := 'm.id, clock_timestamp() + m.expires_in, m.type, m.headers::json, m.body';
BEGIN
    RETURN CASE WHEN due_at IS NULL THEN format('INSERT INTO %I.%I (%s) SELECT %s ', current_schema(), 'q_' || queue, columns, message)
        ELSE format('INSERT INTO %I.delayed (%s, due_at, why, queue) SELECT %s, %s, ''delay'', %L ', current_schema(), columns, message, due_at, queue) END
        || 'FROM ' || source;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION sent_into IS 'The statement that stores messages that have just been sent in a queue, or, with an expression for their due time, among the delayed. The source is what follows FROM, with the alias m and the columns id, type, headers, body and expires_in.';

-- +goose StatementBegin
CREATE FUNCTION moved_into(queue text, source text, headers text DEFAULT 'm.headers', expires_at text DEFAULT 'nullif(m.expires_at, ''infinity'')', attempt text DEFAULT 'm.attempt', due_at text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    columns CONSTANT text := 'id, sent_at, expires_at, attempt, type, headers, body';
    -- What is moved was sent before, whatever a server whose clock is behind believes: sender_limits.
    message CONSTANT text := format('m.id, least(m.sent_at, statement_timestamp() - interval ''1 microsecond''), %s, %s, m.type, %s, m.body',
        moved_into.expires_at, moved_into.attempt, moved_into.headers);
BEGIN
    RETURN CASE WHEN due_at IS NULL THEN format('INSERT INTO %I.%I (%s) SELECT %s ', current_schema(), 'q_' || queue, columns, message)
        ELSE format('INSERT INTO %I.delayed (%s, due_at, why, queue) SELECT %s, %s, ''retry'', %L ', current_schema(), columns, message, due_at, queue) END
        || 'FROM ' || source;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION moved_into IS 'The statement that moves messages from another table into a queue, or, with an expression for their due time, to the delayed ones that are tried again. The source is what follows FROM, with the alias m and the columns of a message; the other parameters are expressions to take in place of columns.';

-- +goose StatementBegin
CREATE FUNCTION rewrite_headers(headers json, added text DEFAULT '', removed text[] DEFAULT '{}') RETURNS json
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    others text := headers::text;
    names  text := array_to_string(removed, '|');
BEGIN
    IF json_typeof(headers) <> 'object' THEN
        RETURN headers;
    END IF;
    -- As text: ->> refuses some strings that json has let in. In a string a quote is escaped, so the patterns match whole headers only.
    IF names <> '' THEN
        others := regexp_replace(regexp_replace(others, ',\s*"(' || names || ')":"[^"\\]*"', '', 'g'), '^\s*\{\s*"(' || names || ')":"[^"\\]*"\s*,?', '{');
    END IF;
    IF others IS NULL OR others ~ '^\s*\{\s*\}\s*$' THEN
        RETURN '{' || nullif(added, '') || '}';
    END IF;
    IF added = '' THEN
        RETURN others;
    END IF;
    RETURN regexp_replace(others, '\s*\}\s*$', ',') || added || '}';
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION rewrite_headers IS 'Headers without some names, and with others added, which are written as in JSON: "a":"b". Null where none are left; what is no object stays as it is.';

-- +goose StatementBegin
CREATE FUNCTION put_message(queue text, id uuid, type text, headers json, body bytea, delay interval, expires_in interval) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    tab     regclass := queue_table(put_message.queue);
    channel text;
BEGIN
    EXECUTE sent_into(put_message.queue, '(SELECT $1 AS id, $2 AS type, $3 AS headers, $4 AS body, $5 AS expires_in) m',
        CASE WHEN delay > interval '0' THEN 'clock_timestamp() + $6' END)
    USING put_message.id, put_message.type, put_message.headers, put_message.body, expires_in, delay;
    IF delay > interval '0' THEN
        -- The mover looks once a second by itself.
        channel := CASE WHEN delay < interval '2 seconds' THEN 'sqlq_' || 'delayed'::regclass::oid END;
    ELSE
        channel := queue_asleep(tab);
    END IF;
    IF channel IS NOT NULL AND current_setting('sqlq.notify', true) IS DISTINCT FROM 'off' THEN
        PERFORM pg_notify(channel, '');
    END IF;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION put_message IS 'Stores a checked message in a queue or among the delayed, and wakes a receiver that sleeps. SET sqlq.notify = off leaves the waking out, for transactions that will be prepared (two-phase commit).';

-- +goose StatementBegin
CREATE FUNCTION send(queue text, type text, body json, headers json DEFAULT NULL, delay interval DEFAULT NULL, expires_in interval DEFAULT NULL, id uuid DEFAULT NULL, key text DEFAULT NULL, correlation_id text DEFAULT NULL, reply_to text DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    message_id uuid := coalesce(send.id, uuid_v7());
BEGIN
    PERFORM check_times(delay, expires_in);
    PERFORM put_message(send.queue, message_id, send.type,
        check_message(send.type, send.body, send.headers, send.key, send.correlation_id, send.reply_to), convert_to(send.body::text, 'UTF8'), delay, expires_in);
    RETURN message_id;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION send IS 'Sends a message to a queue, as part of the running transaction. Returns its id.';

-- +goose StatementBegin
CREATE FUNCTION send_many(queue text, type text, bodies json[], headers json DEFAULT NULL, delay interval DEFAULT NULL, expires_in interval DEFAULT NULL, key text DEFAULT NULL, correlation_id text DEFAULT NULL, reply_to text DEFAULT NULL) RETURNS bigint
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
    headers := check_message(send_many.type, 'null', send_many.headers, send_many.key, send_many.correlation_id, send_many.reply_to);
    EXECUTE sent_into(send_many.queue, format($q$(
            SELECT %I.uuid_v7() AS id, $1 AS type, $2 AS headers, convert_to(b.body::text, 'UTF8') AS body, $3 AS expires_in
            FROM unnest($4) WITH ORDINALITY b (body, n) ORDER BY b.n) m$q$, current_schema()), CASE WHEN delay > interval '0' THEN 'clock_timestamp() + $5' END)
    USING send_many.type, send_many.headers, expires_in, bodies, delay;
    GET DIAGNOSTICS sent = ROW_COUNT;
    IF delay > interval '0' THEN
        -- The mover looks once a second by itself.
        channel := CASE WHEN sent > 0 AND delay < interval '2 seconds' THEN 'sqlq_' || 'delayed'::regclass::oid END;
    ELSIF sent > 0 THEN
        channel := queue_asleep(tab);
    END IF;
    IF channel IS NOT NULL AND current_setting('sqlq.notify', true) IS DISTINCT FROM 'off' THEN
        PERFORM pg_notify(channel, '');
    END IF;
    RETURN sent;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION send_many IS 'Sends a message for each body to a queue, in their order, by one insert and with one wake-up, as part of the running transaction. Returns how many.';

INSERT INTO privilege (kind, privilege, sort, object, columns) VALUES
    ('producer', 'INSERT', 'table', 'delayed', '{due_at,id,expires_at,why,queue,type,headers,body}'),
    ('consumer', 'INSERT', 'table', 'delayed', '{}'),
    ('consumer', 'SELECT', 'table', 'leased', '{}'),
    ('consumer', 'INSERT', 'table', 'leased', '{}'),
    ('consumer', 'DELETE', 'table', 'leased', '{}'),
    ('consumer', 'UPDATE', 'table', 'leased', '{attempt,headers}'),
    ('consumer', 'INSERT', 'table', 'error', '{}'),
    ('operator', 'SELECT', 'table', 'delayed', '{}'),
    ('operator', 'INSERT', 'table', 'delayed', '{}'),
    ('operator', 'DELETE', 'table', 'delayed', '{}'),
    ('operator', 'UPDATE', 'table', 'delayed', '{due_at,seq}'),
    ('operator', 'SELECT', 'table', 'leased', '{}'),
    ('operator', 'DELETE', 'table', 'leased', '{}'),
    ('operator', 'UPDATE', 'table', 'leased', '{seq}'), -- of one column: enough to lock a row
    ('operator', 'SELECT', 'table', 'error', '{}'),
    ('operator', 'DELETE', 'table', 'error', '{}'),
    ('operator', 'UPDATE', 'table', 'error', '{status,archived_at,headers,body}'),
    ('operator', 'SELECT', 'sequence', 'delayed_seq_seq', '{}'),
    ('operator', 'SELECT', 'sequence', 'error_seq_seq', '{}'),
    ('viewer', 'SELECT', 'table', 'delayed', '{due_at,seq,id,sent_at,expires_at,attempt,why,queue,type,error}'),
    ('viewer', 'SELECT', 'table', 'leased', '{lease,instance,queue,seq,leased_at,id,sent_at,expires_at,attempt,type}'),
    ('viewer', 'SELECT', 'table', 'error', '{seq,id,status,queue,endpoint,host,type,attempts,replays,sent_at,expires_at,first_failed_at,failed_at,archived_at,error_type,message,fingerprint}'),
    ('viewer', 'SELECT', 'sequence', 'delayed_seq_seq', '{}'),
    ('viewer', 'SELECT', 'sequence', 'error_seq_seq', '{}');
INSERT INTO privilege (kind, privilege, sort, object, given) VALUES
    ('viewer', 'SELECT', 'table', 'delayed', 'bodies'),
    ('viewer', 'SELECT', 'table', 'leased', 'bodies'),
    ('viewer', 'SELECT', 'table', 'error', 'bodies');
INSERT INTO privilege (kind, privilege, sort, object)
SELECT k, 'EXECUTE', 'function', f FROM unnest('{producer,operator}'::text[]) k,
    unnest('{send,send_many,put_message,sent_into,check_message,check_times,max_body,uuid_v7}'::text[]) f;
INSERT INTO privilege (kind, privilege, sort, object) VALUES
    ('operator', 'EXECUTE', 'function', 'moved_into'), -- for replay
    ('operator', 'EXECUTE', 'function', 'rewrite_headers');

CALL finish_migration('uuid_v7', 'max_body', 'check_times', 'check_message', 'sent_into', 'moved_into', 'rewrite_headers', 'put_message', 'send',
    'send_many');

-- +goose Down

DROP FUNCTION send_many, send, put_message, rewrite_headers, moved_into, sent_into, check_message, check_times, max_body, uuid_v7;
DROP TABLE error, leased, delayed;
CALL finish_migration();
