package trial

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/lab"
)

// sessionFaults ends sessions, now and then several in a second.
type sessionFaults struct{ *trial }

func (t sessionFaults) lane() lane {
	return lane{name: "sessions", shortest: 100 * time.Millisecond, pause: 2 * time.Second, faults: []fault{
		{"terminate_backend", t.terminateSessions(1)}, {"terminate_backend", t.terminateSessions(6)}, {"cancel_statement", t.cancelStatements},
	}}
}

func (t sessionFaults) terminateSessions(most int) func(context.Context, *rand.Rand, string) bool {
	return func(ctx context.Context, r *rand.Rand, kind string) bool {
		for range 1 + r.IntN(most) {
			if n := t.signalSessions(ctx, `pg_terminate_backend`, `true`); n > 0 {
				t.faults.struck(kind, everybody, "a session")()
			}
			_ = lab.Sleep(ctx, between(r, 10*time.Millisecond, 200*time.Millisecond))
		}
		return true
	}
}

func (t sessionFaults) cancelStatements(ctx context.Context, r *rand.Rand, kind string) bool {
	if n := t.signalSessions(ctx, `pg_cancel_backend`, `state = 'active'`); n > 0 {
		t.faults.struck(kind, everybody, "a statement")()
		return true
	}
	return false
}

func (t sessionFaults) signalSessions(ctx context.Context, function, where string) (n int) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_ = t.site.admin.QueryRow(ctx, `SELECT count(`+function+`(pid)) FROM (
		SELECT pid FROM pg_stat_activity WHERE usename = $1 AND `+where+` ORDER BY random() LIMIT 1) s`, role).Scan(&n)
	return n
}

// administratorFaults is what administrators do.
type administratorFaults struct{ *trial }

func (t administratorFaults) lane() lane {
	faults := []fault{
		{"statement_timeout", t.settings("statement_timeout", "15ms", "40ms", "100ms")},
		{"lock_timeout", t.lockTimeout},
		{"idle_timeout", t.settings("idle_in_transaction_session_timeout", "5ms", "30ms")},
		{"idle_session_timeout", t.settings("idle_session_timeout", "50ms", "400ms")},
		{"read_only", t.settings("default_transaction_read_only", "on")},
		{"connection_limit", t.takeConnections},
		{"long_transaction", t.longTransaction},
		{"vacuum_full", t.maintain("VACUUM FULL %s")},
		{"reindex", t.maintain("REINDEX TABLE CONCURRENTLY %s")},
		{"lock_table", t.lockTable},
		{"disk_full", t.fillDisk},
		{"migration", t.migrate},
	}
	if _, err := exec.LookPath("pg_dump"); err == nil {
		faults = append(faults, fault{"pg_dump", t.dump})
	} else {
		t.skip("pg_dump: it is not installed")
	}
	return lane{name: "administrator", shortest: 300 * time.Millisecond, pause: 1500 * time.Millisecond, faults: faults}
}

// settings changes a setting for all sessions, or for those of the role that begin, for a second or two.
func (t administratorFaults) settings(name string, values ...string) func(context.Context, *rand.Rand, string) bool {
	return func(ctx context.Context, r *rand.Rand, kind string) bool {
		value, d := values[r.IntN(len(values))], between(r, 500*time.Millisecond, 2*time.Second)
		set, reset := `ALTER SYSTEM SET `+name+` = '`+value+`'`, `ALTER SYSTEM RESET `+name
		if r.IntN(3) == 0 {
			set, reset = `ALTER ROLE `+role+` SET `+name+` = '`+value+`'`, `ALTER ROLE `+role+` RESET `+name
		}
		return t.whileSet(ctx, kind, set, reset, func() { _ = lab.Sleep(ctx, d) })
	}
}

func (t administratorFaults) whileSet(ctx context.Context, kind, set, reset string, f func()) bool {
	const reload = `SELECT pg_reload_conf()`
	apply := func(ctx context.Context, sql string) error {
		if err := t.site.insist(ctx, sql); err != nil {
			return err
		}
		return t.site.insist(ctx, reload)
	}
	if apply(ctx, set) == nil {
		over := t.faults.struck(kind, everybody, "%s", set)
		defer over()
		f()
	}
	if err := apply(context.WithoutCancel(ctx), reset); err != nil {
		t.problem("%s: %v", reset, err)
	}
	return true
}

// lockTimeout has statements give up their wait for a lock soon, while there is something to wait for.
func (t administratorFaults) lockTimeout(ctx context.Context, r *rand.Rand, kind string) bool {
	return t.whileSet(ctx, kind, `ALTER SYSTEM SET lock_timeout = '10ms'`, `ALTER SYSTEM RESET lock_timeout`, func() {
		t.holdLock(ctx, r)
	})
}

func (t administratorFaults) lockTable(ctx context.Context, r *rand.Rand, kind string) bool {
	over := t.faults.struck(kind, everybody, "for a while")
	defer over()
	t.holdLock(ctx, r)
	return true
}

// holdLock locks a table against everybody.
func (t administratorFaults) holdLock(ctx context.Context, r *rand.Rand) {
	mode := []string{"ACCESS EXCLUSIVE", "EXCLUSIVE", "SHARE"}[r.IntN(3)]
	table, d := anyTable(r), between(r, 300*time.Millisecond, 2*time.Second)
	err := pgx.BeginFunc(ctx, t.site.admin, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `LOCK TABLE `+table+` IN `+mode+` MODE`); err != nil {
			return err
		}
		_ = lab.Sleep(ctx, d)
		return nil
	})
	t.faults.happened(everybody, "%s was locked in %s mode for %v: %v", table, mode, d.Round(time.Millisecond), err)
}

// fillDisk leaves no room on the disk on which the queues' tables lie, where they have one of their own. That stops only who
// needs another page, so besides a table refuses every row, in the same words. (When it is the WAL that finds no room the whole
// server goes down, which server_crash does.)
func (t administratorFaults) fillDisk(ctx context.Context, r *rand.Rand, kind string) bool {
	t.room.Lock()
	defer t.room.Unlock()
	table, d := anyTable(r), between(r, 300*time.Millisecond, 1500*time.Millisecond)
	if t.site.disk != nil {
		if err := t.site.disk.fill(); err != nil {
			t.problem("fill the disk: %v", err)
		}
		defer func() {
			if err := t.site.disk.empty(); err != nil {
				t.problem("empty the disk: %v", err)
			}
		}()
	}
	over := t.faults.struck(kind, everybody, "the disk, and %s, is full for %v", table, d.Round(time.Millisecond))
	defer over()
	if _, err := t.site.admin.Exec(ctx, `CREATE TRIGGER full_disk BEFORE INSERT ON `+table+` EXECUTE FUNCTION full_disk()`); err != nil {
		t.faults.happened(everybody, "%s was not made to refuse rows: %v", table, err)
	}
	_ = lab.Sleep(ctx, d)
	if err := t.site.insist(context.WithoutCancel(ctx), `DROP TRIGGER IF EXISTS full_disk ON `+table); err != nil {
		t.problem("have %s take rows again: %v", table, err)
	}
	return true
}

// migrate changes a table as the migrations of a later release may, while processes of this one run: it gains a column and
// an index, which stay for a moment.
func (t administratorFaults) migrate(ctx context.Context, r *rand.Rand, kind string) bool {
	table, d := anyTable(r), between(r, 300*time.Millisecond, 1500*time.Millisecond)
	up := `BEGIN; ALTER TABLE ` + table + ` ADD COLUMN later_release text DEFAULT 'x'; CREATE INDEX ON ` + table + ` (later_release); COMMIT`
	if _, err := t.site.admin.Exec(ctx, up, pgx.QueryExecModeSimpleProtocol); err != nil {
		return false
	}
	over := t.faults.struck(kind, everybody, "%s has another column for %v", table, d.Round(time.Millisecond))
	defer over()
	_ = lab.Sleep(ctx, d)
	if err := t.site.insist(context.WithoutCancel(ctx), `ALTER TABLE `+table+` DROP COLUMN IF EXISTS later_release`); err != nil {
		t.problem("take the migration back: %v", err)
	}
	return true
}

// anyTable returns a table of the library's.
func anyTable(r *rand.Rand) string {
	all := []string{"sqlq.delayed", "sqlq.leased", "sqlq.error", "sqlq.instance", "sqlq.queue"}
	for _, q := range queues {
		all = append(all, "sqlq.q_"+q)
	}
	return all[r.IntN(len(all))]
}

func (t administratorFaults) maintain(command string) func(context.Context, *rand.Rand, string) bool {
	return func(ctx context.Context, r *rand.Rand, kind string) bool {
		table := anyTable(r)
		over := t.faults.struck(kind, everybody, command, table)
		defer over()
		_, err := t.site.admin.Exec(ctx, fmt.Sprintf(command, table))
		if err != nil {
			t.faults.happened(everybody, command+": %v", table, err)
		}
		return true
	}
}

// longTransaction holds a snapshot back, as a report does.
func (t administratorFaults) longTransaction(ctx context.Context, r *rand.Rand, kind string) bool {
	d := between(r, 2*time.Second, 15*time.Second)
	over := t.faults.struck(kind, everybody, "%v", d.Round(time.Millisecond))
	t.lasting(func() {
		defer over()
		_ = pgx.BeginTxFunc(ctx, t.site.admin, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `SELECT count(*) FROM sqlq.delayed`)
			_ = lab.Sleep(ctx, d)
			return err
		})
	})
	return true
}

// takeConnections opens connections until the server refuses more, and keeps them for a moment.
func (t administratorFaults) takeConnections(ctx context.Context, r *rand.Rand, kind string) bool {
	d := between(r, 300*time.Millisecond, 1500*time.Millisecond)
	over := t.faults.struck(kind, everybody, "%v", d.Round(time.Millisecond))
	defer over()
	var mu sync.Mutex
	var taken []*pgx.Conn
	var openers sync.WaitGroup
	for range 8 {
		openers.Go(func() {
			for range 12 {
				bounded, cancel := context.WithTimeout(ctx, 2*time.Second)
				c, err := pgx.Connect(bounded, t.site.url(nil))
				cancel()
				if err != nil {
					return
				}
				mu.Lock()
				taken = append(taken, c)
				mu.Unlock()
			}
		})
	}
	openers.Wait()
	_ = lab.Sleep(ctx, d)
	for _, c := range taken {
		c.Close(context.WithoutCancel(ctx))
	}
	return true
}

// dump runs pg_dump, which locks all tables and holds a snapshot back.
func (t administratorFaults) dump(ctx context.Context, _ *rand.Rand, kind string) bool {
	over := t.faults.struck(kind, everybody, "")
	defer over()
	var said strings.Builder
	cmd := exec.CommandContext(ctx, "pg_dump", "--lock-wait-timeout=2s", "--schema=sqlq", t.site.url(nil))
	cmd.Stdout, cmd.Stderr = io.Discard, &said
	if err := cmd.Run(); err != nil {
		t.faults.happened(everybody, "pg_dump: %v: %s", err, said.String())
	}
	return true
}
