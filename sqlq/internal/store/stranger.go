package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Stranger is a session that holds an advisory lock that is not for it. PostgreSQL has no privilege for such locks: every
// role of the database can take each.
type Stranger struct {
	Lock        string // LockSleeper, LockWatch, LockLead, LockAlive or LockQueues
	Queue       string // whose lock it is; "": no queue's
	Number      int64  // of LockAlive: the process's number
	PID         int32  // of the session; 0: a prepared transaction has it
	Application string // as the session names itself
	User        string // who logged in
}

// The locks that a stranger can hold.
const (
	LockSleeper = "sleeper" // of a queue, held alone: senders hold it so for microseconds
	LockWatch   = "watch"   // of a queue
	LockLead    = "leader"  // of the process that does the background work
	LockAlive   = "alive"   // of a process
	LockQueues  = "queues"  // of whoever makes or drops a queue, or grants; until the transaction ends
)

// Strangers returns the sessions that hold the schema's advisory locks and are not those that should, by how they name
// themselves: as the library's own connections do, for listening and for keeping house. Locks nothing; it looks at all locks of
// the server, and names no table by regclass, which is refused to a role that may not use the schema.
func (s Sessions) Strangers(ctx context.Context, db DBTX) ([]Stranger, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		WITH keys AS (
			SELECT c.relname, (c.oid::bigint - 2147483648)::int::oid AS key
			FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE n.nspname = $1 AND c.relkind = 'r' AND (c.relname LIKE 'q\_%%' OR c.relname IN ('instance', 'queue'))
		), held AS (
			SELECT CASE
					WHEN k.relname = 'instance' AND l.classid = k.key THEN CASE WHEN l.objid = 0 THEN '%[3]s' ELSE '%[4]s' END
					WHEN k.relname = 'queue' THEN CASE WHEN l.classid = %[5]d THEN '%[7]s' END
					WHEN l.classid = %[5]d THEN CASE WHEN l.mode = 'ExclusiveLock' THEN '%[1]s' END
					ELSE '%[2]s' END AS lock,
				CASE WHEN k.relname LIKE 'q\_%%' THEN substr(k.relname, 3) ELSE '' END AS queue, l.objid::bigint AS number,
				coalesce(l.pid, 0) AS pid, coalesce(a.application_name, '') AS application, coalesce(a.usename::text, '') AS usename
			FROM pg_locks l
			JOIN keys k ON k.relname = 'instance' AND l.classid = k.key
				OR k.relname <> 'instance' AND l.classid IN (%[5]d, %[6]d) AND l.objid = k.key
			LEFT JOIN pg_stat_activity a ON a.pid = l.pid
			WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
				AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
		)
		SELECT lock, queue, CASE WHEN lock = '%[4]s' THEN number ELSE 0 END, pid, application, usename FROM held
		WHERE lock IN ('%[1]s', '%[7]s') OR lock = '%[2]s' AND NOT starts_with(application, 'sqlq listen')
			OR lock = '%[3]s' AND NOT starts_with(application, 'sqlq keep')
			OR lock = '%[4]s' AND NOT starts_with(application, 'sqlq listen') AND NOT starts_with(application, 'sqlq keep')
		ORDER BY 1, 2, 3, 4`, LockSleeper, LockWatch, LockLead, LockAlive, sleepers, watchers, LockQueues), s.name)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Stranger])
}
