-- The record of migrations has a name of sqlq's own, sqlq_migration: in a schema that an application's tables are in too,
-- goose_db_version is the application's. Who migrates renames a record of before first; see docs/migrations.md.
--
-- Databases of other encodings than UTF8 and SQL_ASCII are refused: headers may hold any character, and in an encoding that
-- lacks it they were changed in silence.

-- +goose Up

-- +goose StatementBegin
DO $$
DECLARE
    f regproc;
BEGIN
    IF current_setting('server_encoding') NOT IN ('UTF8', 'SQL_ASCII') THEN
        RAISE feature_not_supported USING
            MESSAGE = format('the encoding %s of the database cannot hold every header', current_setting('server_encoding')),
            HINT = 'Take a database that was made with ENCODING ''UTF8''.';
    END IF;
    IF to_regclass(quote_ident(current_schema()) || '.sqlq_migration') IS NULL THEN
        RAISE undefined_table USING
            MESSAGE = 'the record of migrations, sqlq_migration, is missing',
            HINT = 'Name it to goose (WithTableName, -table), and rename to it a goose_db_version that is sqlq''s alone.';
    END IF;
    FOREACH f IN ARRAY ARRAY['grant_messages', 'revoke_messages']::regproc[] LOOP
        EXECUTE replace(pg_get_functiondef(f), 'goose_db_version', 'sqlq_migration');
    END LOOP;
END $$;
-- +goose StatementEnd

-- +goose Down

-- +goose StatementBegin
DO $$
DECLARE
    f regproc;
BEGIN
    FOREACH f IN ARRAY ARRAY['grant_messages', 'revoke_messages']::regproc[] LOOP
        EXECUTE replace(pg_get_functiondef(f), 'sqlq_migration', 'goose_db_version');
    END LOOP;
END $$;
-- +goose StatementEnd
