package query

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// The queries of this file and of vacuum.go look at the catalogue and at statistics. None locks a row, and none reads a
// table of messages unless it says so. They name no table of the schema by regclass: that is refused to a role that may
// not use the schema, and these are for finding that out.

// Server is what a server says of itself and of this session.
type Server struct {
	Version    int    // as server_version_num: 150018
	Text       string // "15.18 (Debian 15.18-0+deb12u1)"
	Database   string
	User       string // who logged in
	Role       string // in whose name statements run
	Superuser  bool
	Bypass     bool // row security does not apply to the role: a superuser, or BYPASSRLS
	Statistics bool // it may see what other sessions do
	Standby    bool
	ReadOnly   bool // transactions are read-only unless they say otherwise
	Vacuums    bool // the settings autovacuum and track_counts are on
	Encrypted  bool
}

// Server returns what the server says of itself.
func (s healthQueries) Server(ctx context.Context, db DBTX) (Server, error) {
	rows, err := db.Query(ctx, `
		SELECT current_setting('server_version_num')::int, current_setting('server_version'), current_database()::text, session_user::text,
			current_user::text, r.rolsuper, r.rolsuper OR r.rolbypassrls,
			pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'), pg_is_in_recovery(),
			current_setting('default_transaction_read_only')::boolean,
			current_setting('autovacuum')::boolean AND current_setting('track_counts')::boolean,
			coalesce((SELECT l.ssl FROM pg_stat_ssl l WHERE l.pid = pg_backend_pid()), false)
		FROM pg_roles r WHERE r.rolname = current_user`)
	if err != nil {
		return Server{}, err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Server])
}

// Exists reports whether there is a schema of that name, whether this role may use it, and whose it is: the owner of the
// registry of queues, or of the schema where that is missing.
func (s healthQueries) Exists(ctx context.Context, db DBTX) (exists, may bool, owner string, err error) {
	err = db.QueryRow(ctx, `
		SELECT n.oid IS NOT NULL, coalesce(has_schema_privilege(n.oid, 'USAGE'), false), coalesce(pg_get_userbyid(coalesce(c.relowner, n.nspowner))::text, '')
		FROM (SELECT $1::text) s (name) LEFT JOIN pg_namespace n ON n.nspname = s.name
		LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'queue' AND c.relkind = 'r'`, s.Name()).Scan(&exists, &may, &owner)
	return exists, may, owner, err
}

// WhoIsConnectedSQL tells an operator who has the connections.
const WhoIsConnectedSQL = `SELECT application_name, usename, count(*) FROM pg_stat_activity GROUP BY 1, 2 ORDER BY 3 DESC`

// Usage is how many connections there are, and how many there may be.
type Usage struct {
	Limit    string // which limit it is: "max_connections", "the role's CONNECTION LIMIT", "the database's CONNECTION LIMIT"
	Most     int    // less those that are kept for others than this role
	Used     int
	Reserved int
}

// Usage returns the connections in use under each limit that applies to this role.
func (s healthQueries) Usage(ctx context.Context, db DBTX) ([]Usage, error) {
	rows, err := db.Query(ctx, `
		WITH me AS (
			SELECT oid, rolsuper, rolconnlimit,
				CASE WHEN rolsuper THEN 0 ELSE current_setting('superuser_reserved_connections')::int
					+ coalesce(current_setting('reserved_connections', true)::int, 0) END AS reserved
			FROM pg_roles WHERE rolname = current_user
		)
		SELECT 'max_connections', current_setting('max_connections')::int - me.reserved,
			(SELECT sum(numbackends)::int FROM pg_stat_database), me.reserved FROM me
		UNION ALL
		SELECT 'the role''s CONNECTION LIMIT', me.rolconnlimit, (SELECT count(*)::int FROM pg_stat_activity a WHERE a.usesysid = me.oid), 0
		FROM me WHERE NOT me.rolsuper AND me.rolconnlimit >= 0
		UNION ALL
		SELECT 'the database''s CONNECTION LIMIT', d.datconnlimit, (SELECT t.numbackends FROM pg_stat_database t WHERE t.datid = d.oid), 0
		FROM pg_database d, me WHERE d.datname = current_database() AND NOT me.rolsuper AND d.datconnlimit >= 0`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Usage])
}

// Listen has the session listen on a channel.
func (s healthQueries) Listen(ctx context.Context, db DBTX, channel string) error {
	_, err := db.Exec(ctx, `LISTEN `+pgx.Identifier{channel}.Sanitize())
	return err
}

// EnableRowSecuritySQL is the statement that has row security apply to a table, to others than its owner.
func (s healthQueries) EnableRowSecuritySQL(table string) string {
	return fmt.Sprintf(`ALTER TABLE %s ENABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY`, s.table(table))
}

// DisableRowSecuritySQL is the statement that has a table without policies seen again.
func (s healthQueries) DisableRowSecuritySQL(table string) string {
	return fmt.Sprintf(`ALTER TABLE %s DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY`, s.table(table))
}

// OwnSQL is the statement that gives a table to an owner.
func (s healthQueries) OwnSQL(table, owner string) string {
	return fmt.Sprintf(`ALTER TABLE %s OWNER TO %s`, s.table(table), pgx.Identifier{owner}.Sanitize())
}

// ReindexSQL is the statement that makes an index anew while its table is in use.
func (s healthQueries) ReindexSQL(index string) string {
	return fmt.Sprintf(`REINDEX INDEX CONCURRENTLY %s`, s.table(index))
}

// DropIndexSQL is the statement that removes an index while its table is in use.
func (s healthQueries) DropIndexSQL(index string) string {
	return fmt.Sprintf(`DROP INDEX CONCURRENTLY %s`, s.table(index))
}

// BrokenIndex is an index that the server does not use.
type BrokenIndex struct{ Index, Table string }

// BrokenIndexes returns the indexes of the schema's tables that are not valid.
func (s healthQueries) BrokenIndexes(ctx context.Context, db DBTX) ([]BrokenIndex, error) {
	rows, err := db.Query(ctx, `
		SELECT i.relname::text, t.relname::text FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
		JOIN pg_namespace n ON n.oid = t.relnamespace
		WHERE n.nspname = $1::text AND NOT (x.indisvalid AND x.indisready) ORDER BY 2, 1`, s.Name())
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[BrokenIndex])
}

// Sequence is how far a sequence is.
type Sequence struct {
	Name string
	Last int64
	Most int64
}

// UsedSequences returns the sequences of the schema of which more than a given percentage is used. Those that the role may
// not read are left out.
func (s healthQueries) UsedSequences(ctx context.Context, db DBTX, hundredths int) ([]Sequence, error) {
	rows, err := db.Query(ctx, `
		SELECT sequencename::text, last_value, max_value FROM pg_sequences
		WHERE schemaname = $1::text AND last_value > max_value / 100 * $2::int ORDER BY 1`, s.Name(), hundredths)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Sequence])
}

// Strayed are functions of the schema whose search_path leads elsewhere.
type Strayed struct {
	Path string // where it leads; "": it is not set
	N    int64
}

// StrayedFunctions returns the functions of the schema that are not pinned to it, by where they look instead: after the schema
// was renamed they look in the old one. sender_headers needs no tables, and is not pinned.
func (s healthQueries) StrayedFunctions(ctx context.Context, db DBTX) ([]Strayed, error) {
	rows, err := db.Query(ctx, `
		SELECT coalesce(path, ''), count(*) FROM (
			SELECT (SELECT substr(c, length('search_path=') + 1) FROM unnest(p.proconfig) c WHERE c LIKE 'search\_path=%') AS path
			FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = $1::text AND p.proname <> 'sender_headers'
		) f WHERE path IS DISTINCT FROM quote_ident($1::text) || ', pg_temp' GROUP BY path ORDER BY path`, s.Name())
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Strayed])
}

// PinFunctionsSQL is the statement that pins the functions of the schema to it.
func (s healthQueries) PinFunctionsSQL() string {
	return fmt.Sprintf(`DO $$ DECLARE f regprocedure; BEGIN FOR f IN SELECT oid FROM pg_proc WHERE pronamespace = quote_ident(%[1]s)::regnamespace AND proname <> 'sender_headers' LOOP `+
		`EXECUTE format('ALTER ROUTINE %%s SET search_path = %%I, pg_temp', f, %[1]s); END LOOP; END $$`, quote(s.Name()))
}

// PinFunctions runs PinFunctionsSQL.
func (s healthQueries) PinFunctions(ctx context.Context, db DBTX) error {
	_, err := db.Exec(ctx, s.PinFunctionsSQL())
	return err
}

// OpenTable is a table whose row security is not as the migrations make it.
type OpenTable struct {
	Table  string
	Open   bool // row security is off, although there are policies
	Forced bool // it binds the owner too, as whom what moves messages of all queues runs
	Closed bool // it is on, and not by the migrations
}

// RowSecurity returns the tables of the schema whose row security is not as the migrations make it.
func (s healthQueries) RowSecurity(ctx context.Context, db DBTX) ([]OpenTable, error) {
	rows, err := db.Query(ctx, `
		SELECT c.relname::text, p.there AND NOT c.relrowsecurity, c.relforcerowsecurity, NOT p.there AND c.relrowsecurity
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
			LATERAL (SELECT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname IN ('readable', 'writable')) AS there) p
		WHERE n.nspname = $1::text AND c.relkind = 'r' AND (p.there <> c.relrowsecurity OR c.relforcerowsecurity) ORDER BY 1`, s.Name())
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[OpenTable])
}

// ForeignTable is a table or function of the schema whose owner is not that of the registry of queues.
type ForeignTable struct{ Name, Owner string }

// ForeignTables returns the tables of the schema that do not belong to the owner.
func (s healthQueries) ForeignTables(ctx context.Context, db DBTX, owner string) ([]ForeignTable, error) {
	rows, err := db.Query(ctx, `
		SELECT c.relname::text, pg_get_userbyid(c.relowner)::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1::text AND c.relkind = 'r' AND pg_get_userbyid(c.relowner) <> $2::text ORDER BY 1`, s.Name(), owner)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[ForeignTable])
}

// SeenInstance is an instance as doctor looks at it.
type SeenInstance struct {
	ID        int32
	Endpoint  string
	Host      string
	PID       int
	Version   string
	Silent    time.Duration // since its last heartbeat
	LeaseTime time.Duration
	Ended     string         // "": it is taken for alive
	Crashed   *time.Duration // how long ago it was found dead
}

// SeenInstances returns the instances that are taken for alive, and those that crashed within a time, up to a limit.
func (s healthQueries) SeenInstances(ctx context.Context, db DBTX, within time.Duration, most int) ([]SeenInstance, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT id, endpoint, host, pid, version, %s, %s, CASE WHEN crashed_at IS NOT NULL THEN 'crashed' ELSE '' END,
			%s
		FROM %s WHERE drained_at IS NULL AND (crashed_at IS NULL OR crashed_at > clock_timestamp() - $1::bigint * interval '1 microsecond')
		ORDER BY id DESC LIMIT $2::int`, elapsed(`heartbeat_at`), lastingMicros(`lease_time`), elapsed(`crashed_at`), s.table("instance")), within.Microseconds(), most)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (i SeenInstance, err error) {
		var silent, lease int64
		var crashed *int64
		err = row.Scan(&i.ID, &i.Endpoint, &i.Host, &i.PID, &i.Version, &silent, &lease, &i.Ended, &crashed)
		i.Silent, i.LeaseTime, i.Crashed = time.Duration(silent)*time.Microsecond, time.Duration(lease)*time.Microsecond, duration(crashed)
		return i, err
	})
}

// Orphans are leased messages of a queue whose instance has ended.
type Orphans struct {
	Queue  string
	N      int64
	Oldest time.Duration // since the first of them was leased
	Gone   bool          // the queue is gone too, so that nothing gives them back
}

// OrphanedLeases returns the leases whose instance has ended or never was, by queue, among the first limit of them. Relies on
// the primary key of leased, of which it reads one entry an instance, and those of the orphans.
func (s healthQueries) OrphanedLeases(ctx context.Context, db DBTX, limit int) ([]Orphans, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		WITH RECURSIVE holder (instance) AS (
			(SELECT instance FROM %[1]s ORDER BY instance LIMIT 1)
			UNION ALL
			SELECT (SELECT l.instance FROM %[1]s l WHERE l.instance > h.instance ORDER BY l.instance LIMIT 1) FROM holder h WHERE h.instance IS NOT NULL
		), gone AS MATERIALIZED (
			SELECT h.instance FROM holder h WHERE h.instance IS NOT NULL AND NOT EXISTS (
				SELECT FROM %[2]s i WHERE i.id = h.instance AND i.drained_at IS NULL AND i.crashed_at IS NULL)
		)
		SELECT o.queue, count(*), %[3]s,
			to_regclass(quote_ident($1::text) || '.' || quote_ident('q_' || o.queue)) IS NULL
		FROM (
			SELECT l.queue, l.leased_at FROM gone g, LATERAL (SELECT queue, leased_at FROM %[1]s WHERE instance = g.instance LIMIT $2::int) l LIMIT $2::int
		) o GROUP BY o.queue ORDER BY o.queue`, s.table("leased"), s.table("instance"), elapsed(`min(o.leased_at)`)), s.Name(), limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (o Orphans, err error) {
		var us int64
		err = row.Scan(&o.Queue, &o.N, &us, &o.Gone)
		o.Oldest = time.Duration(us) * time.Microsecond
		return o, err
	})
}

// Overdue are delayed messages of a queue that should have been moved.
type Overdue struct {
	Queue  string
	N      int64
	Oldest time.Duration // since the first of them was due
}

// OverdueDelayed returns the delayed messages that have been due for longer than late, by queue, among the first limit of
// them. Relies on the primary key.
func (s healthQueries) OverdueDelayed(ctx context.Context, db DBTX, late time.Duration, limit int) ([]Overdue, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT queue, count(*), %s
		FROM (SELECT queue, due_at FROM %s WHERE due_at < clock_timestamp() - $1::bigint * interval '1 microsecond' ORDER BY due_at, seq LIMIT $2::int) d
		GROUP BY queue ORDER BY queue`, elapsed(`min(due_at)`), s.table("delayed")), late.Microseconds(), limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (o Overdue, err error) {
		var us int64
		err = row.Scan(&o.Queue, &o.N, &us)
		o.Oldest = time.Duration(us) * time.Microsecond
		return o, err
	})
}

// FailedSince counts the messages that failed within a time and wait for an operator, up to a limit. Relies on the index
// (status, failed_at).
func (s healthQueries) FailedSince(ctx context.Context, db DBTX, within time.Duration, limit int) (n int64, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`
		SELECT count(*) FROM (SELECT FROM %s WHERE status = 'failed' AND failed_at > clock_timestamp() - $1::bigint * interval '1 microsecond'
			LIMIT $2::int) f`, s.table("error")), within.Microseconds(), limit).Scan(&n)
	return n, err
}
