-- A sender's probe that cannot leave its lock behind, and one lock for each process that lives instead of one for each of
-- its instances.

-- +goose Up

ALTER TABLE instance ADD process integer;
COMMENT ON COLUMN instance.process IS 'Whose advisory lock shows that the instance lives: the number of the first instance of its process; null: its own.';
COMMENT ON COLUMN instance.session_lock IS 'Whether connections of its process hold the advisory lock that shows that it lives.';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION queue_asleep(queue_table regclass) RETURNS text
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

-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION queue_asleep(regclass) SET search_path = %I, pg_temp', current_schema());
END $$;
-- +goose StatementEnd

-- +goose Down

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION queue_asleep(queue_table regclass) RETURNS text
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

-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION queue_asleep(regclass) SET search_path = %I, pg_temp', current_schema());
END $$;
-- +goose StatementEnd
COMMENT ON COLUMN instance.session_lock IS 'Whether its connections hold the advisory lock that shows that it lives.';
ALTER TABLE instance DROP process;
