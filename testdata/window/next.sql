-- A later migration that only adds, on which the library of today must run: SQLQ_TEST_EXTRA_MIGRATION names this file, and the
-- schema of each test's database has it. Each table of messages gets a column, in the queues that are made from then on too.
ALTER TABLE ready ADD COLUMN later text NOT NULL DEFAULT 'later';
ALTER TABLE delayed ADD COLUMN later text NOT NULL DEFAULT 'later';
ALTER TABLE leased ADD COLUMN later text NOT NULL DEFAULT 'later';
ALTER TABLE error ADD COLUMN later text NOT NULL DEFAULT 'later';
ALTER TABLE queue ADD COLUMN later text NOT NULL DEFAULT 'later';
ALTER TABLE subscription ADD COLUMN later text NOT NULL DEFAULT 'later';
ALTER TABLE instance ADD COLUMN later text NOT NULL DEFAULT 'later';
ALTER TABLE operation ADD COLUMN later text NOT NULL DEFAULT 'later';
ALTER TABLE history ADD COLUMN later text NOT NULL DEFAULT 'later';
COMMENT ON COLUMN ready.later IS 'As in every queue.';
CREATE TABLE later (n bigint PRIMARY KEY);
CREATE FUNCTION read_later() RETURNS bigint LANGUAGE sql AS $$ SELECT count(*) FROM later $$;
INSERT INTO privilege (kind, privilege, sort, object) VALUES ('consumer', 'SELECT', 'table', 'later'), ('every', 'EXECUTE', 'function', 'read_later');
CALL finish_migration('read_later');
