-- Events: which queues receive which events, who may subscribe them, and publishing. The publishing functions store messages in queues
-- on which the publisher may have no privileges, so they run as the owner.

-- +goose Up

CREATE TABLE subscription (
    type       text NOT NULL,
    queue      text NOT NULL REFERENCES queue (name) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    settled    boolean NOT NULL DEFAULT true,
    PRIMARY KEY (type, queue)
);
COMMENT ON TABLE subscription IS 'Which queue gets a copy of which event type.';
COMMENT ON COLUMN subscription.type IS 'Event type.';
COMMENT ON COLUMN subscription.queue IS 'The subscribed queue.';
COMMENT ON COLUMN subscription.settled IS 'Whether every running instance of the endpoint handles the type. Of several forms of one event the queue gets one of a settled subscription first, and of these the newest.';
COMMENT ON COLUMN subscription.created_at IS 'Events published after this row was committed reach the queue.';

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

CREATE POLICY readable ON subscription FOR SELECT USING (true);
CREATE POLICY writable ON subscription FOR ALL USING (queue_allows(queue, 'DELETE')) WITH CHECK (queue_allows(queue, 'DELETE') AND may_subscribe(queue, type));
ALTER TABLE subscription ENABLE ROW LEVEL SECURITY;

-- +goose StatementBegin
CREATE FUNCTION publish(type text, body json, headers json DEFAULT NULL, delay interval DEFAULT NULL, expires_in interval DEFAULT NULL, id uuid DEFAULT NULL, key text DEFAULT NULL, correlation_id text DEFAULT NULL, reply_to text DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
DECLARE
    message_id uuid := coalesce(publish.id, uuid_v7());
    subscriber text;
    copies     integer := 0;
BEGIN
    PERFORM check_times(delay, expires_in);
    headers := check_message(publish.type, publish.body, publish.headers, publish.key, publish.correlation_id, publish.reply_to);
    FOR subscriber IN SELECT s.queue FROM subscription s WHERE s.type = publish.type ORDER BY s.queue LOOP
        -- An old snapshot shows subscriptions of queues that were dropped since.
        CONTINUE WHEN to_regclass(format('%I.%I', current_schema(), 'q_' || subscriber)) IS NULL;
        PERFORM put_message(subscriber, message_id, publish.type, headers, convert_to(publish.body::text, 'UTF8'), delay, expires_in);
        copies := copies + 1;
    END LOOP;
    RETURN copies;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION publish IS 'Publishes an event to every subscribed queue, as part of the running transaction. Returns the number of copies; an event without subscribers is stored nowhere.';

-- +goose StatementBegin
CREATE FUNCTION publish_batch(ids uuid[], types text[], headers text[], bodies bytea[], expires_in interval[], forms integer[] DEFAULT NULL, due_at timestamptz[] DEFAULT NULL) RETURNS TABLE (queue text, copies bigint, channel text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
DECLARE
    wanted  text[];
    settled text[];
BEGIN
    IF cardinality(forms) <> cardinality(ids) OR array_position(forms, NULL) IS NOT NULL THEN
        RAISE invalid_parameter_value USING MESSAGE = 'not every event has a number in forms', HINT = 'Rows of one event have one number, the newest form first.';
    END IF;
    -- One statement reads all subscriptions: every queue goes by the same ones.
    FOR queue, wanted, settled IN
        SELECT s.queue, array_agg(s.type), coalesce(array_agg(s.type) FILTER (WHERE s.settled), '{}')
        FROM subscription s WHERE s.type = ANY (types) GROUP BY s.queue ORDER BY s.queue
    LOOP
        -- An old snapshot shows subscriptions of queues that were dropped since.
        CONTINUE WHEN to_regclass(format('%I.%I', current_schema(), 'q_' || queue)) IS NULL;
        EXECUTE sent_into(queue, CASE WHEN forms IS NULL THEN
            'unnest($1, $2, $3, $4, $5, $6) WITH ORDINALITY AS m (id, type, headers, body, expires_in, due_at, n) WHERE m.type = ANY ($7) ORDER BY m.n'
        ELSE $q$(
            SELECT DISTINCT ON (f.form) * FROM unnest($1, $2, $3, $4, $5, $6, $9) WITH ORDINALITY AS f (id, type, headers, body, expires_in, due_at, form, n)
            WHERE f.type = ANY ($7) ORDER BY f.form, f.type <> ALL ($8), f.n) m ORDER BY m.form$q$ END,
            CASE WHEN due_at IS NOT NULL THEN 'greatest(m.due_at, clock_timestamp())' END)
        USING ids, types, headers, bodies, expires_in, due_at, wanted, settled, forms;
        GET DIAGNOSTICS copies = ROW_COUNT;
        IF due_at IS NULL THEN
            channel := queue_asleep(queue_table(queue));
        ELSE -- the mover looks once a second by itself
            channel := CASE WHEN (SELECT min(d) FROM unnest(due_at) d) < clock_timestamp() + interval '2 seconds' THEN 'sqlq_' || 'delayed'::regclass::oid END;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION publish_batch IS 'Publishes the checked events of the Go library to the queues subscribed at this moment; with due_at for later times. Forms: rows that have one number are forms of one event, the newest first, of which each queue gets one: the first of a type that it is subscribed to, settled subscriptions before others; null: each row is an event. Returns, for each queue, the copies stored and the channel to notify after the commit (null: nobody needs to be told).';

INSERT INTO privilege (kind, privilege, sort, object) VALUES
    ('consumer', 'SELECT', 'table', 'subscription'),
    ('consumer', 'INSERT', 'table', 'subscription'),
    ('consumer', 'SELECT', 'table', 'subscriber'),
    ('operator', 'SELECT', 'table', 'subscription'),
    ('operator', 'INSERT', 'table', 'subscription'),
    ('operator', 'DELETE', 'table', 'subscription'),
    ('operator', 'SELECT', 'table', 'subscriber'),
    ('viewer', 'SELECT', 'table', 'subscription');
INSERT INTO privilege (kind, privilege, sort, object) SELECT k, 'EXECUTE', 'function', f FROM (VALUES
    ('producer', '{publish,publish_batch}'::text[]),
    ('consumer', '{may_subscribe}'),
    ('operator', '{publish,publish_batch,may_subscribe}')) v (k, functions), unnest(functions) f;

CALL finish_migration('may_subscribe', 'publish', 'publish_batch');

-- +goose Down

DROP FUNCTION publish_batch, publish;
DROP TABLE subscription, subscriber;
DROP FUNCTION may_subscribe;
CALL finish_migration();
