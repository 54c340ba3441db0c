-- Ids leave an inbox also while its tables cannot be emptied: handlers that share a transaction for longer than rotate_inbox waits
-- may follow one another for ever.

-- +goose Up

ALTER TABLE inbox ADD COLUMN swept bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN inbox.swept IS 'How many pages of its tables, one after the other, have been looked through for ids to delete; 0: none, or all.';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION rotate_inbox() RETURNS integer
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

-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION rotate_inbox() SET search_path = %I, pg_temp', current_schema());
END $$;
-- +goose StatementEnd

-- +goose Down

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION rotate_inbox() RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET lock_timeout = '250ms' -- a transaction with handlers in it, or a dump, may have the tables for longer
AS $$
DECLARE
    i       record;
    spare   text;
    written boolean;
    leases  json;
    busy    boolean := false;
BEGIN
    FOR i IN SELECT * FROM inbox b WHERE b.rotated_at < clock_timestamp() - b.keeps ORDER BY b.keeps LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %I) OR EXISTS (SELECT FROM %I)', 'inbox_' || i.name || '_a', 'inbox_' || i.name || '_b') INTO written;
        CONTINUE WHEN NOT written;
        BEGIN
            EXECUTE format('LOCK TABLE %I IN SHARE ROW EXCLUSIVE MODE', 'inbox_' || i.name || '_a');
            SELECT * INTO i FROM inbox b WHERE b.name = i.name AND b.rotated_at < clock_timestamp() - b.keeps;
            CONTINUE WHEN NOT FOUND; -- somebody else was here
            spare := CASE i.current WHEN 'a' THEN 'b' ELSE 'a' END;
            -- What is being handled by lease stays claimed, however long that takes.
            EXECUTE format($q$
                SELECT json_agg(o) FROM %I o
                WHERE o.instance IS NOT NULL AND EXISTS (SELECT FROM leased l WHERE l.instance = o.instance AND l.queue = o.queue AND l.id = o.id)$q$,
                'inbox_' || i.name || '_' || spare) INTO leases;
            EXECUTE format('TRUNCATE %I', 'inbox_' || i.name || '_' || spare);
            EXECUTE format('INSERT INTO %1$I SELECT r.* FROM json_populate_recordset(NULL::%1$I, $1) r', 'inbox_' || i.name || '_' || spare) USING leases;
            UPDATE inbox b SET current = spare, rotated_at = clock_timestamp() WHERE b.name = i.name;
            RETURN 1; -- its locks are not held while another is waited for
        EXCEPTION WHEN lock_not_available THEN
            busy := true; -- which keeps no other from its turn
        END;
    END LOOP;
    IF busy THEN
        RAISE lock_not_available USING MESSAGE = 'an inbox whose time has come is in use', HINT = 'Its ids are kept until then; try again.';
    END IF;
    RETURN 0;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION rotate_inbox IS 'Empties the older table of an inbox whose time has come, by TRUNCATE, and has it written from now on. Returns how many: 1, then there may be another, or 0. An error with SQLSTATE 55P03 says that somebody has those that are left for long: it is to be tried again.';
-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION rotate_inbox() SET search_path = %I, pg_temp', current_schema());
END $$;
-- +goose StatementEnd
ALTER TABLE inbox DROP COLUMN swept;
