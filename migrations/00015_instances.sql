-- Instances: the processes that run endpoints.

-- +goose Up

CREATE TABLE instance (
    id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint     text NOT NULL,
    host         text NOT NULL,
    pid          integer NOT NULL,
    version      text NOT NULL,
    concurrency  integer NOT NULL,
    session_lock boolean NOT NULL,
    lease_time   interval NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    heartbeat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    drained_at   timestamptz,
    crashed_at   timestamptz,
    handled      bigint NOT NULL DEFAULT 0,
    failed       bigint NOT NULL DEFAULT 0,
    in_hand      integer NOT NULL DEFAULT 0,
    rate         real NOT NULL DEFAULT 0,
    slow         integer NOT NULL DEFAULT 0,
    slowest      interval,
    expired      bigint NOT NULL DEFAULT 0,
    process      integer
) WITH (fillfactor = 50);
COMMENT ON TABLE instance IS 'Running processes of the endpoints, and for a day those that ended.';
COMMENT ON COLUMN instance.id IS 'Number of the instance; a process that runs several endpoints has one for each.';
COMMENT ON COLUMN instance.endpoint IS 'The endpoint whose messages it handles.';
COMMENT ON COLUMN instance.host IS 'Host name.';
COMMENT ON COLUMN instance.pid IS 'Process id on that host.';
COMMENT ON COLUMN instance.version IS 'Version of the program, from its build information.';
COMMENT ON COLUMN instance.concurrency IS 'How many messages it handles at a time.';
COMMENT ON COLUMN instance.session_lock IS 'Whether connections of its process hold the advisory lock that shows that it lives.';
COMMENT ON COLUMN instance.lease_time IS 'A heartbeat older than this means that it is dead.';
COMMENT ON COLUMN instance.started_at IS 'When it began.';
COMMENT ON COLUMN instance.heartbeat_at IS 'When it last said that it lives.';
COMMENT ON COLUMN instance.drained_at IS 'When it ended in order; null: it runs, or died.';
COMMENT ON COLUMN instance.crashed_at IS 'When another instance found it dead and gave its messages back.';
COMMENT ON COLUMN instance.handled IS 'Messages handled, or dropped as duplicates, since it began, as of the last heartbeat.';
COMMENT ON COLUMN instance.failed IS 'Messages settled as failed, for good or to be retried later, since it began, as of the last heartbeat.';
COMMENT ON COLUMN instance.in_hand IS 'Handlers running at the last heartbeat.';
COMMENT ON COLUMN instance.rate IS 'Messages a second settled as complete between the last two heartbeats.';
COMMENT ON COLUMN instance.slow IS 'Handlers that at the last heartbeat had been running for longer than the endpoint warns after (SlowAfter).';
COMMENT ON COLUMN instance.slowest IS 'For how long the oldest running handler had been running at the last heartbeat; null: none was.';
COMMENT ON COLUMN instance.expired IS 'Messages dropped unhandled since it began, because their time to live had passed, as of the last heartbeat.';
COMMENT ON COLUMN instance.process IS 'Whose advisory lock shows that the instance lives: the number of the first instance of its process; null: its own.';

INSERT INTO privilege (kind, privilege, sort, object, columns) VALUES
    ('consumer', 'SELECT', 'table', 'instance', '{}'),
    ('consumer', 'INSERT', 'table', 'instance', '{}'),
    ('consumer', 'DELETE', 'table', 'instance', '{}'),
    ('consumer', 'UPDATE', 'table', 'instance', '{heartbeat_at,drained_at,crashed_at,handled,failed,in_hand,rate,slow,slowest,expired}'),
    ('operator', 'SELECT', 'table', 'instance', '{}'),
    ('operator', 'UPDATE', 'table', 'instance', '{crashed_at}'),
    ('viewer', 'SELECT', 'table', 'instance', '{}');

CALL finish_migration();

-- +goose Down

DROP TABLE instance;
CALL finish_migration();
