-- Looking into bodies and headers: whatever is wrong with those of one message, it fits no filter, and stops no list.

-- +goose Up

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION body_json(body bytea) RETURNS jsonb
LANGUAGE plpgsql STABLE -- not parallel: it begins subtransactions
AS $$
DECLARE
    words text;
    value jsonb;
BEGIN
    words := convert_from(body, 'UTF8');
    value := words::jsonb;
    -- What could be read may still be nested deeper than a path can follow, and where the path is asked nobody catches that.
    IF length(words) > 2000 AND length(words) - length(translate(words, '[{', '')) > 1000 THEN
        PERFORM jsonb_path_exists(value, '$.**');
    END IF;
    RETURN value;
EXCEPTION WHEN OTHERS THEN -- no text, no JSON, nested too deep, too large; a cancelled statement is not caught
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION header_value(headers json, name text) RETURNS text
LANGUAGE plpgsql STABLE -- not parallel: it begins subtransactions
AS $$
BEGIN
    RETURN headers ->> name;
EXCEPTION WHEN OTHERS THEN -- no object, an escape that no text has, nested too deep
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN
        SELECT p.oid FROM pg_proc p
        WHERE p.pronamespace = quote_ident(current_schema())::regnamespace AND p.proname IN ('body_json', 'header_value')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
    END LOOP;
END $$;
-- +goose StatementEnd

-- +goose Down

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION body_json(body bytea) RETURNS jsonb
LANGUAGE plpgsql STABLE -- not parallel: it begins subtransactions
AS $$
BEGIN
    RETURN convert_from(body, 'UTF8')::jsonb;
EXCEPTION WHEN data_exception THEN -- bytes that are no text included
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION header_value(headers json, name text) RETURNS text
LANGUAGE plpgsql STABLE -- not parallel: it begins subtransactions
AS $$
BEGIN
    RETURN headers ->> name;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN
        SELECT p.oid FROM pg_proc p
        WHERE p.pronamespace = quote_ident(current_schema())::regnamespace AND p.proname IN ('body_json', 'header_value')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
    END LOOP;
END $$;
-- +goose StatementEnd
