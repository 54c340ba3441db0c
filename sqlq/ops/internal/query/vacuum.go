package query

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Holder is what keeps vacuum from removing rows that were deleted after it began, or a transaction that is open for long.
type Holder struct {
	Kind        string // "session", "standby", "slot" or "prepared transaction"
	Name        string // of the slot, the standby or the prepared transaction; of a session its application_name
	PID         int32  // 0: none
	User        string
	State       string // of a session: "idle in transaction", "active", …; of a slot: "active" or "inactive"
	Query       string // a session's last one, cut off
	Open        time.Duration
	Holds       bool  // it has a transaction id or a snapshot, so vacuum is held back now
	Xids        int64 // how many transactions ago that was
	HoldsFiles  int64 // bytes of WAL that a slot keeps
	SameProcess bool  // it is this session's own role, which may end it
}

// Holders returns who holds vacuum back in this database, oldest first: sessions whose transaction is open for longer than
// a time, prepared transactions likewise, standbys that report what they still read, and replication slots. Of other roles'
// sessions it sees nothing without the privileges of pg_read_all_stats.
func (s healthQueries) Holders(ctx context.Context, db DBTX, longer time.Duration) ([]Holder, error) {
	rows, err := db.Query(ctx, `
		WITH holder AS (
			SELECT 'session' AS kind, coalesce(application_name, '') AS name, pid, coalesce(usename::text, '') AS usename, coalesce(state, '') AS state,
				left(coalesce(query, ''), 200) AS query, clock_timestamp() - xact_start AS open,
				backend_xid IS NOT NULL OR backend_xmin IS NOT NULL AS holds,
				greatest(age(backend_xid), age(backend_xmin), 0)::bigint AS xids, 0::bigint AS files, usesysid = (SELECT oid FROM pg_roles WHERE rolname = current_user) AS mine
			FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND xact_start IS NOT NULL
				AND clock_timestamp() - xact_start > $1::bigint * interval '1 microsecond'
			UNION ALL
			SELECT 'prepared transaction', gid, 0, owner::text, '', '', clock_timestamp() - prepared, true, age(transaction)::bigint, 0, owner = current_user
			FROM pg_prepared_xacts WHERE database = current_database() AND clock_timestamp() - prepared > $1::bigint * interval '1 microsecond'
			UNION ALL
			SELECT 'standby', coalesce(application_name, ''), pid, coalesce(usename::text, ''), coalesce(state, ''), '', NULL, true, age(backend_xmin)::bigint, 0, false
			FROM pg_stat_replication WHERE backend_xmin IS NOT NULL
			UNION ALL
			SELECT 'slot', slot_name::text, coalesce(active_pid, 0), '', CASE WHEN active THEN 'active' ELSE 'inactive' END, '', NULL, xmin IS NOT NULL,
				coalesce(age(xmin), 0)::bigint,
				CASE WHEN restart_lsn IS NULL OR pg_is_in_recovery() THEN 0 ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint END, false
			FROM pg_replication_slots WHERE NOT temporary
		)
		SELECT kind, name, pid, usename, state, query, coalesce(extract(epoch FROM open) * 1000000, 0)::bigint, holds, xids, files, coalesce(mine, false)
		FROM holder ORDER BY open DESC NULLS LAST, kind, name, pid`, longer.Microseconds())
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (h Holder, err error) {
		var us int64
		err = row.Scan(&h.Kind, &h.Name, &h.PID, &h.User, &h.State, &h.Query, &us, &h.Holds, &h.Xids, &h.HoldsFiles, &h.SameProcess)
		h.Open = time.Duration(us) * time.Microsecond
		return h, err
	})
}

// EndSessionSQL is the statement that terminates a session; its transaction is rolled back.
func EndSessionSQL(pid int32) string { return fmt.Sprintf(`SELECT pg_terminate_backend(%d)`, pid) }

// DropSlotSQL is the statement that removes a replication slot.
func DropSlotSQL(name string) string {
	return fmt.Sprintf(`SELECT pg_drop_replication_slot(%s)`, literal(name))
}

// RollbackPreparedSQL is the statement that undoes a prepared transaction.
func RollbackPreparedSQL(id string) string { return `ROLLBACK PREPARED ` + literal(id) }

// VacuumSQL is the statement that vacuums a table of the schema, with options such as "FULL" or "VERBOSE".
func (s healthQueries) VacuumSQL(table, options string) string {
	if options != "" {
		options = `(` + options + `) `
	}
	return `VACUUM ` + options + s.table(table)
}

// TableHealth is what vacuum and the statistics say of a table of messages.
type TableHealth struct {
	Table         string
	Bytes         int64 // of the rows, without TOAST and indexes
	IndexBytes    int64
	TotalBytes    int64
	Live          int64 // rows, as the statistics say; at least what the last vacuum found
	Dead          int64 // rows that vacuum has not removed
	Vacuumed      *time.Time
	XidAge        int64 // transactions since the oldest row that is not frozen
	MultixactAge  int64
	Options       []string // storage parameters
	ToastOptions  []string
	FreezeXids    int64 // autovacuum_freeze_max_age
	FreezeMulti   int64 // autovacuum_multixact_freeze_max_age
	LastedVacuums int64 // how often it was vacuumed by autovacuum
}

// TablesHealth returns the health of the tables of messages: the queues, delayed, leased and error. It asks for the size of
// each table's files.
func (s healthQueries) TablesHealth(ctx context.Context, db DBTX) ([]TableHealth, error) {
	rows, err := db.Query(ctx, `
		SELECT c.relname::text, coalesce(pg_relation_size(c.oid), 0), coalesce(pg_indexes_size(c.oid), 0), coalesce(pg_total_relation_size(c.oid), 0),
			greatest(pg_stat_get_live_tuples(c.oid), c.reltuples::bigint, 0), coalesce(pg_stat_get_dead_tuples(c.oid), 0),
			greatest(pg_stat_get_last_vacuum_time(c.oid), pg_stat_get_last_autovacuum_time(c.oid)),
			greatest(age(c.relfrozenxid), age(t.relfrozenxid))::bigint, greatest(mxid_age(c.relminmxid), mxid_age(t.relminmxid))::bigint,
			coalesce(c.reloptions, '{}'), coalesce(t.reloptions, '{}'),
			current_setting('autovacuum_freeze_max_age')::bigint, current_setting('autovacuum_multixact_freeze_max_age')::bigint,
			coalesce(pg_stat_get_autovacuum_count(c.oid), 0)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
		WHERE n.nspname = $1::text AND c.relkind = 'r' AND (left(c.relname, 2) = 'q_' OR c.relname IN ('delayed', 'leased', 'error'))
		ORDER BY 1`, s.Name())
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[TableHealth])
}

// VacuumOptions are the storage parameters that keep vacuum up with a table whose rows come and go, as create_queue sets
// them and the migrations on delayed and leased, which lack the parameters of Queues.
var VacuumOptions = struct{ All, Queues, Toast []string }{
	All:    []string{"autovacuum_vacuum_scale_factor=0", "autovacuum_vacuum_threshold=10000", "autovacuum_vacuum_cost_delay=0", "vacuum_truncate=false"},
	Queues: []string{"autovacuum_vacuum_insert_threshold=-1", "autovacuum_analyze_scale_factor=0", "autovacuum_analyze_threshold=1000000"},
	Toast:  []string{"autovacuum_vacuum_scale_factor=0", "autovacuum_vacuum_threshold=10000", "autovacuum_vacuum_cost_delay=0", "vacuum_truncate=false"},
}

// SetOptionsSQL is the statement that sets storage parameters of a table of the schema, each as name=value.
func (s healthQueries) SetOptionsSQL(table string, options []string) string {
	sql := `ALTER TABLE ` + s.table(table) + ` SET (`
	for i, option := range options {
		if i > 0 {
			sql += `, `
		}
		sql += option
	}
	return sql + `)`
}

// SetOptions sets storage parameters of a table. Waits for vacuum and for other changes of the table, and for nobody who
// reads or writes rows.
func (s healthQueries) SetOptions(ctx context.Context, db DBTX, table string, options []string) error {
	_, err := db.Exec(ctx, s.SetOptionsSQL(table, options))
	return err
}
