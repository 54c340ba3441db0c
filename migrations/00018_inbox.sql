-- The inbox: which messages an endpoint has handled recently, so that messages sent twice are handled once.

-- +goose Up

CREATE TABLE inbox (
    name       text PRIMARY KEY,
    keeps      interval NOT NULL,
    current    text NOT NULL DEFAULT 'a' CHECK (current IN ('a', 'b')),
    rotated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    swept      bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE inbox IS 'The inboxes, by how long they keep ids. Of the two tables of each, inbox_X_a and inbox_X_b, one is written; when it has been for so long, the other is emptied by TRUNCATE and they change places. So nothing is deleted row by row.';
COMMENT ON COLUMN inbox.name IS 'Name, part of the names of its tables.';
COMMENT ON COLUMN inbox.keeps IS 'How long an id is kept at least, and the longest window that an endpoint of this inbox may have.';
COMMENT ON COLUMN inbox.current IS 'Which of its tables is written: a or b.';
COMMENT ON COLUMN inbox.rotated_at IS 'Since when.';
COMMENT ON COLUMN inbox.swept IS 'How many pages of its tables, one after the other, have been looked through for ids to delete; 0: none, or all.';
INSERT INTO inbox (name, keeps) VALUES ('minutes', '10 minutes'), ('hours', '3 hours'), ('days', '2 days'), ('weeks', '31 days');

-- +goose StatementBegin
DO $$
DECLARE
    tab text;
BEGIN
    FOR tab IN SELECT 'inbox_' || i.name || '_' || ab FROM inbox i, unnest(ARRAY['a', 'b']) ab ORDER BY i.keeps, ab LOOP
        EXECUTE format($q$
            CREATE TABLE %1$I (
                at       timestamptz NOT NULL DEFAULT clock_timestamp(),
                id       uuid NOT NULL,
                instance integer,
                queue    text NOT NULL,
                PRIMARY KEY (id, queue)
            ) WITH (autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000000)$q$, tab);
        EXECUTE format('CREATE INDEX %I ON %I (instance) WHERE instance IS NOT NULL', tab || '_instance', tab);
        EXECUTE format('COMMENT ON TABLE %I IS %L', tab, 'Ids of messages that were handled, or are being handled by lease; see inbox.');
        EXECUTE format('COMMENT ON COLUMN %I.at IS %L', tab, 'When the message was handled.');
        EXECUTE format('COMMENT ON COLUMN %I.id IS %L', tab, 'Message id, given by the sender.');
        EXECUTE format('COMMENT ON COLUMN %I.instance IS %L', tab, 'The instance that has leased the message and handles it; null: it was handled.');
        EXECUTE format('COMMENT ON COLUMN %I.queue IS %L', tab, 'The queue, and endpoint, that it was handled in.');
    END LOOP;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION inbox_tables(queue text, keep interval, OUT written text, OUT other text)
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
COMMENT ON FUNCTION inbox_tables IS 'The tables of the inbox for a window: the one that is written and the other. They stay that to the end of the transaction.';

-- +goose StatementBegin
CREATE FUNCTION claim_messages(queue text, ids uuid[], keep interval, instance integer, leases bigint[] DEFAULT '{}') RETURNS TABLE (id uuid, state text)
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
COMMENT ON FUNCTION claim_messages IS 'Claims messages by id before they are handled: until the transaction ends, or as long as the leases of the instance, if one is given: leases are those of these messages. State claimed: whoever asked may handle it, and when nothing more is said it has been; handled: it was, within the window. Of one that is not returned somebody else has another copy in hand.';

-- +goose StatementBegin
CREATE FUNCTION settle_claims(queue text, keep interval, handled uuid[], unhandled uuid[], leasing uuid[], leased boolean, instance integer) RETURNS void
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
COMMENT ON FUNCTION settle_claims IS 'Says what became of messages that were claimed: handled by lease, not handled, or leased from now on, by an instance. Leased says whether those not handled were claimed for it, or by this transaction.';

-- +goose StatementBegin
CREATE FUNCTION rotate_inbox() RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET lock_timeout = '250ms' -- a transaction with handlers in it, or a dump, may have the tables for longer
SET enable_tidscan = on
AS $$
DECLARE
    piece   CONSTANT bigint := 128; -- pages, some 10,000 ids
    place   text := current_schema();
    began   timestamptz;
    i       record;
    spare   text;
    written boolean;
    leases  json;
    busy    boolean := false;
    late    text[] := '{}';
    a       text; -- its tables
    b       text;
    pages_a bigint;
    pages_b bigint;
    page    bigint;
    got     bigint;
    deleted bigint;
BEGIN
    FOR i IN SELECT * FROM inbox x WHERE x.rotated_at < clock_timestamp() - x.keeps ORDER BY x.keeps LOOP
        a := 'inbox_' || i.name || '_a';
        b := 'inbox_' || i.name || '_b';
        EXECUTE format('SELECT EXISTS (SELECT FROM %1$I.%2$I) OR EXISTS (SELECT FROM %1$I.%3$I)', place, a, b) INTO written;
        CONTINUE WHEN NOT written;
        IF i.swept > 0 THEN -- under way, and nobody is to wait for each piece
            late := late || i.name;
            CONTINUE;
        END IF;
        BEGIN
            EXECUTE format('LOCK TABLE %I.%I IN SHARE ROW EXCLUSIVE MODE', place, a);
            SELECT * INTO i FROM inbox x WHERE x.name = i.name AND x.rotated_at < clock_timestamp() - x.keeps;
            CONTINUE WHEN NOT FOUND; -- somebody else was here
            spare := CASE i.current WHEN 'a' THEN b ELSE a END;
            -- What is being handled by lease stays claimed, however long that takes.
            EXECUTE format($q$
                SELECT json_agg(o) FROM %1$I.%2$I o
                WHERE o.instance IS NOT NULL
                    AND EXISTS (SELECT FROM %1$I.leased l WHERE l.instance = o.instance AND l.queue = o.queue AND l.id = o.id)$q$,
                place, spare) INTO leases;
            EXECUTE format('TRUNCATE %I.%I', place, spare);
            EXECUTE format('INSERT INTO %1$I.%2$I SELECT r.* FROM json_populate_recordset(NULL::%1$I.%2$I, $1) r', place, spare) USING leases;
            UPDATE inbox x SET current = CASE i.current WHEN 'a' THEN 'b' ELSE 'a' END, rotated_at = clock_timestamp(), swept = 0
            WHERE x.name = i.name;
            RETURN 1; -- its locks are not held while another is waited for
        EXCEPTION WHEN lock_not_available THEN
            busy := true; -- which keeps no other from its turn
            late := late || i.name;
        END;
    END LOOP;
    -- What is late may be for ever: ids that were kept for their time are deleted, page by page, for a moment. Rows that a claim
    -- takes over just now are left alone.
    FOR i IN SELECT * FROM inbox x WHERE x.name = ANY (late) ORDER BY x.keeps LOOP
        CONTINUE WHEN i.rotated_at > clock_timestamp() - i.keeps - least(i.keeps, interval '1 hour');
        began := clock_timestamp();
        a := 'inbox_' || i.name || '_a';
        b := 'inbox_' || i.name || '_b';
        pages_a := pg_relation_size(to_regclass(format('%I.%I', place, a))) / current_setting('block_size')::bigint;
        pages_b := pg_relation_size(to_regclass(format('%I.%I', place, b))) / current_setting('block_size')::bigint;
        page := i.swept;
        deleted := 0;
        BEGIN
            WHILE page < pages_a + pages_b AND clock_timestamp() < began + interval '500ms' LOOP
                EXECUTE format($q$
                    WITH old AS MATERIALIZED (
                        SELECT o.ctid FROM %1$I.%2$I o
                        WHERE o.ctid >= $1 AND o.ctid < $2 AND o.at < $3 AND (o.instance IS NULL
                            OR NOT EXISTS (SELECT FROM %1$I.leased l WHERE l.instance = o.instance AND l.queue = o.queue AND l.id = o.id))
                        FOR UPDATE OF o SKIP LOCKED
                    )
                    DELETE FROM %1$I.%2$I o USING old WHERE o.ctid = old.ctid$q$, place, CASE WHEN page < pages_a THEN a ELSE b END)
                USING format('(%s,0)', page - CASE WHEN page < pages_a THEN 0 ELSE pages_a END)::tid,
                    format('(%s,0)', least(page + piece, CASE WHEN page < pages_a THEN pages_a ELSE pages_a + pages_b END)
                        - CASE WHEN page < pages_a THEN 0 ELSE pages_a END)::tid, began - i.keeps;
                GET DIAGNOSTICS got = ROW_COUNT;
                deleted := deleted + got;
                page := least(page + piece, CASE WHEN page < pages_a THEN pages_a ELSE pages_a + pages_b END);
            END LOOP;
        EXCEPTION WHEN lock_not_available THEN
            CONTINUE; -- somebody has the whole table
        END;
        CONTINUE WHEN i.swept = 0 AND deleted = 0 AND page >= pages_a + pages_b;
        UPDATE inbox x SET swept = CASE WHEN page < pages_a + pages_b THEN page ELSE 0 END WHERE x.name = i.name;
        RETURN CASE WHEN page < pages_a + pages_b THEN 2 ELSE 0 END;
    END LOOP;
    IF busy THEN
        RAISE lock_not_available USING MESSAGE = 'an inbox whose time has come is in use', HINT = 'Its ids are kept until then; try again.';
    END IF;
    RETURN 0;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION rotate_inbox IS 'Empties the older table of an inbox whose time has come, by TRUNCATE, and has it written from now on. Of one that is in use and late by as long as it keeps ids, or an hour, it deletes ids that were kept for their time instead, for half a second at most. Returns 1 for an inbox that was turned, then it may be the turn of another; 2 for one of which there is more to delete; else 0. An error with SQLSTATE 55P03 says that somebody has those that are left for long: it is to be tried again.';

INSERT INTO privilege (kind, privilege, sort, object)
SELECT 'consumer', 'EXECUTE', 'function', f FROM unnest('{claim_messages,settle_claims,rotate_inbox}'::text[]) f;

CALL finish_migration('inbox_tables', 'claim_messages', 'settle_claims', 'rotate_inbox');

-- +goose Down

DROP FUNCTION rotate_inbox, settle_claims, claim_messages, inbox_tables;
DROP TABLE inbox_minutes_a, inbox_minutes_b, inbox_hours_a, inbox_hours_b, inbox_days_a, inbox_days_b, inbox_weeks_a, inbox_weeks_b, inbox;
CALL finish_migration();
