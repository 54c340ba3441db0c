-- The schema as a whole: which programs it serves, and who may do what.
--
-- Names in these files are unqualified: the files run with the target schema as search_path, and finish_migration, which ends
-- each file, pins its functions to that schema. Each table and function is written once, in its final form.
--
-- The numbers begin at 11, because pre-releases numbered theirs from 1 to 10: so the two records cannot be confused.

-- +goose Up

-- +goose StatementBegin
DO $$
DECLARE
    here text := quote_ident(current_schema());
BEGIN
    IF current_setting('server_encoding') NOT IN ('UTF8', 'SQL_ASCII') THEN
        RAISE feature_not_supported USING
            MESSAGE = format('the encoding %s of the database cannot hold every header', current_setting('server_encoding')),
            HINT = 'Take a database that was made with ENCODING ''UTF8''.';
    END IF;
    IF to_regclass(here || '.queue') IS NOT NULL AND to_regclass(here || '.leased') IS NOT NULL AND to_regclass(here || '.subscription') IS NOT NULL THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = format('the tables in schema %s are those of a release before the first, which cannot be migrated', here),
            HINT = format('Let its programs handle what is waiting, or export it (sqlq error export) with that release; then DROP SCHEMA %s CASCADE and migrate again. Or take another schema.', here);
    END IF;
    IF to_regclass(here || '.sqlq_migration') IS NULL THEN
        RAISE undefined_table USING
            MESSAGE = 'the record of migrations, sqlq_migration, is missing',
            HINT = 'Name it to goose: WithTableName, -table.';
    END IF;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION oldest_library() RETURNS bigint
LANGUAGE sql STABLE
AS $$ SELECT 19::bigint $$;
-- +goose StatementEnd
COMMENT ON FUNCTION oldest_library IS 'The oldest programs that this schema still serves: those made for this version of it, or for a later one. A migration that takes away what they use raises it.';

CREATE TABLE privilege (
    kind      text NOT NULL CHECK (kind IN ('every', 'producer', 'consumer', 'operator', 'viewer')),
    privilege text NOT NULL,
    sort      text NOT NULL CHECK (sort IN ('schema', 'table', 'sequence', 'function', 'queue')),
    object    text NOT NULL DEFAULT '',
    columns   text[] NOT NULL DEFAULT '{}',
    given     text NOT NULL DEFAULT 'always' CHECK (given IN ('always', 'all queues', 'bodies')),
    PRIMARY KEY (kind, sort, object, privilege, columns)
);
COMMENT ON TABLE privilege IS 'What grant_role gives to each kind of role. A migration that makes something adds its rows, and whoever was granted before gets it with that migration.';
COMMENT ON COLUMN privilege.kind IS 'Kind of role; every: each of them.';
COMMENT ON COLUMN privilege.privilege IS 'SELECT, INSERT, EXECUTE, …';
COMMENT ON COLUMN privilege.sort IS 'What it is on; queue: the tables of the queues that are granted.';
COMMENT ON COLUMN privilege.object IS 'Name of the table, sequence or function, of all functions of that name; empty for the schema and the queues.';
COMMENT ON COLUMN privilege.columns IS 'The columns that it is restricted to; none: it is not.';
COMMENT ON COLUMN privilege.given IS 'always; all queues: only to roles that are granted all queues; bodies: only to those that may see bodies.';

CREATE TABLE granted (
    role     name NOT NULL,
    role_oid oid NOT NULL,
    kind     text NOT NULL,
    queue    text NOT NULL DEFAULT '',
    bodies   boolean NOT NULL DEFAULT false,
    PRIMARY KEY (role, kind, queue)
);
COMMENT ON TABLE granted IS 'What grant_role was asked for, so that a migration can grant again. revoke_role and drop_queue remove it.';
COMMENT ON COLUMN granted.role IS 'The role that was granted.';
COMMENT ON COLUMN granted.role_oid IS 'Its number: another role that takes the name later is granted nothing.';
COMMENT ON COLUMN granted.kind IS 'What kind of role it is.';
COMMENT ON COLUMN granted.queue IS 'Of which queue; empty: of all.';
COMMENT ON COLUMN granted.bodies IS 'Whether it may see headers and bodies; of viewers.';

INSERT INTO privilege (kind, privilege, sort, object) VALUES
    ('every', 'USAGE', 'schema', ''),
    ('every', 'SELECT', 'table', 'sqlq_migration'),
    ('every', 'EXECUTE', 'function', 'oldest_library');

-- +goose StatementBegin
CREATE PROCEDURE finish_migration(VARIADIC functions text[] DEFAULT '{}')
LANGUAGE plpgsql
AS $$
DECLARE
    place text := current_schema();
    f     record;
    g     record;
BEGIN
    -- Each function runs with its own schema as search_path, whoever calls it, and nobody may call one without a grant. A backslash
    -- in a literal means itself, whatever the caller has set.
    FOR f IN
        SELECT p.oid::regprocedure AS name, strpos(p.prosrc, chr(92)) > 0 AS backslashes FROM pg_proc p
        WHERE p.pronamespace = quote_ident(place)::regnamespace AND p.proname = ANY (functions)
    LOOP
        EXECUTE format('ALTER ROUTINE %s SET search_path = %I, pg_temp', f.name, place);
        EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', f.name);
        IF f.backslashes THEN
            EXECUTE format('ALTER ROUTINE %s SET standard_conforming_strings = on', f.name);
        END IF;
    END LOOP;
    -- Of what a way down has removed nothing is granted any more.
    DELETE FROM privilege p WHERE p.sort IN ('table', 'sequence') AND to_regclass(format('%I.%I', place, p.object)) IS NULL
        OR p.sort = 'function' AND NOT EXISTS (SELECT FROM pg_proc x WHERE x.pronamespace = quote_ident(place)::regnamespace AND x.proname = p.object);
    -- Roles that were granted before get what has come since. One that is gone, or another of its name, does not.
    DELETE FROM granted d WHERE NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = d.role AND r.oid = d.role_oid);
    FOR g IN
        SELECT d.role, d.kind, d.bodies, CASE WHEN d.queue <> '' THEN array_agg(d.queue) END AS queues
        FROM granted d GROUP BY d.role, d.kind, d.bodies, d.queue <> ''
    LOOP
        PERFORM grant_privileges(g.role, g.kind, g.queues, g.bodies, true);
    END LOOP;
END $$;
-- +goose StatementEnd
COMMENT ON PROCEDURE finish_migration IS 'The end of each migration, up and down: pins the named functions, which it has made, to the schema, closes them to PUBLIC, and gives to roles that were granted before what has come since.';

CALL finish_migration('oldest_library', 'finish_migration');

-- +goose Down

DROP PROCEDURE finish_migration;
DROP FUNCTION oldest_library;
DROP TABLE granted, privilege;
