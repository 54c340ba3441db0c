-- Events: which queues get which, who may subscribe them, and publishing. What publishes stores messages in queues that the
-- publisher may know nothing of, so it runs as the owner.

-- +goose Up

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
CREATE FUNCTION publish(type text, body json, headers json DEFAULT NULL, delay interval DEFAULT NULL, expires_in interval DEFAULT NULL, id uuid DEFAULT NULL) RETURNS integer
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
COMMENT ON FUNCTION publish IS 'Publishes an event to every subscribed queue, as part of the running transaction. Returns the number of copies; an event without subscribers is stored nowhere.';

-- +goose StatementBegin
CREATE FUNCTION publish_batch(ids uuid[], types text[], headers text[], bodies bytea[], expires_in interval[]) RETURNS TABLE (queue text, copies bigint, channel text)
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
COMMENT ON FUNCTION publish_batch IS 'Publishes the checked events of the Go library to the queues subscribed at this moment. Returns, for each queue, the copies stored and the channel to notify after the commit (null: nobody sleeps).';

-- +goose StatementBegin
CREATE FUNCTION publish_delayed(id uuid, type text, headers text, body bytea, due_at timestamptz, expires_in interval) RETURNS text
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
COMMENT ON FUNCTION publish_delayed IS 'Publishes a checked event of the Go library to the queues subscribed at this moment, for a later time. Returns the channel to notify after the commit when it is due soon, else null.';

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
    ('producer', '{publish,publish_batch,publish_delayed}'::text[]),
    ('consumer', '{may_subscribe}'),
    ('operator', '{publish,publish_batch,publish_delayed,may_subscribe}')) v (k, functions), unnest(functions) f;

CALL finish_migration('may_subscribe', 'publish', 'publish_batch', 'publish_delayed');

-- +goose Down

DROP FUNCTION publish_delayed, publish_batch, publish;
DROP TABLE subscription, subscriber;
DROP FUNCTION may_subscribe;
CALL finish_migration();
