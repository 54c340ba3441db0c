package ops

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

const (
	longXids    = 1_000_000 // so many transactions after that of a slot or a standby it holds too much back
	muchWAL     = 1 << 30   // bytes that an inactive slot keeps
	sequenceFor = 80        // hundredths of a sequence that may be used
	xidsInAll   = 2_000_000_000
)

func (e *examination) checkHolders(ctx context.Context) (found []Finding, err error) {
	holders, err := e.store.Holders(ctx, e.pool, e.Long)
	if err != nil {
		return nil, err
	}
	cost := cost(e.health)
	for _, h := range holders {
		if f, is := e.holder(h, cost); is {
			found = append(found, f)
		}
	}
	if !e.server.Statistics && !e.server.Superuser {
		found = append(found, note(foundSessionsUnseen, Subject{"role", e.server.Role}, fmt.Sprintf("role %q sees only its own sessions", e.server.Role),
			"transactions of others that hold vacuum back stay unseen", fmt.Sprintf("GRANT pg_read_all_stats TO %s", ident(e.server.Role))).inSQL())
	}
	return found, nil
}

// cost says how much waits for vacuum.
func cost(health []query.TableHealth) string {
	var dead int64
	var most query.TableHealth
	for _, h := range health {
		dead += h.Dead
		if h.Dead > most.Dead {
			most = h
		}
	}
	if dead == 0 {
		return "vacuum cannot remove what is deleted from the queues meanwhile, and receivers have to step over it"
	}
	return fmt.Sprintf("%s in the tables of messages wait for vacuum, most of them in %s (%d); what was deleted since it began cannot be removed, and receivers have to step over it",
		plural(dead, "dead row"), most.Table, most.Dead)
}

// holder tells of somebody who holds vacuum back; false: it is not worth telling.
func (e *examination) holder(h query.Holder, cost string) (Finding, bool) {
	open := h.Open.Round(time.Second)
	if h.Open < time.Second {
		open = h.Open.Round(time.Millisecond)
	}
	switch h.Kind {
	case "session":
		what := fmt.Sprintf("a transaction has been open for %s: backend %d of %q", open, h.PID, h.User)
		if h.Name != "" {
			what += fmt.Sprintf(" (%s)", h.Name)
		}
		what += fmt.Sprintf(", %s: %s", h.State, oneLine(h.Query))
		why := cost
		if !h.Holds {
			why = "it holds nothing back at this moment, but its locks, and vacuum as soon as it reads again"
		}
		f := warning(foundTransactionLong, Subject{"session", fmt.Sprint(h.PID)}, what, why, query.EndSessionSQL(h.PID)).inSQL()
		if h.Holds && h.Open > 12*e.Long {
			f.Severity = SeverityProblem
		}
		return f, true
	case "prepared transaction":
		f := warning(foundTransactionPrepared, Subject{"prepared transaction", h.Name}, fmt.Sprintf("prepared transaction %q of %q has been waiting for %s", h.Name, h.User, open),
			cost+"; it survives restarts until somebody ends it", query.RollbackPreparedSQL(h.Name)).inSQL()
		if h.Open > 12*e.Long {
			f.Severity = SeverityProblem
		}
		return f, true
	case "standby":
		return warning(foundStandbyHoldsRows, Subject{"standby", h.Name}, fmt.Sprintf("standby %q reads a state of %d transactions ago (hot_standby_feedback)", h.Name, h.Xids),
			cost, "end the long query on the standby, or turn hot_standby_feedback off there"), h.Xids > longXids
	case "slot":
		drop := query.DropSlotSQL(h.Name)
		switch {
		case h.Holds && h.State == "inactive":
			return problem(foundSlotUnusedHoldsRows, Subject{"slot", h.Name}, fmt.Sprintf("replication slot %q, which nobody uses, holds rows back since %d transactions ago", h.Name, h.Xids), cost,
				"start what uses it, or remove it: "+drop).inSQL(), true
		case h.Holds && h.Xids > longXids:
			return warning(foundSlotHoldsRows, Subject{"slot", h.Name}, fmt.Sprintf("replication slot %q holds rows back since %d transactions ago", h.Name, h.Xids), cost,
				"end the long query on the standby, or turn hot_standby_feedback off there"), true
		case h.State == "inactive" && h.HoldsFiles > muchWAL:
			return warning(foundSlotKeepsWAL, Subject{"slot", h.Name}, fmt.Sprintf("replication slot %q, which nobody uses, keeps %s of WAL", h.Name, bytesText(h.HoldsFiles)),
				"the disk fills up with it, and then nothing can be sent", "start what uses it, or remove it: "+drop).inSQL(), true
		}
	}
	return Finding{}, false
}

func (e *examination) checkDead(context.Context) (found []Finding, err error) {
	for _, h := range e.health {
		if h.Dead <= e.Dead {
			continue
		}
		last := "it was never vacuumed"
		if h.Vacuumed != nil {
			last = "it was last vacuumed at " + h.Vacuumed.UTC().Format(time.RFC3339)
		}
		found = append(found, warning(foundDeadRowsMany, ofTable(h.Table), fmt.Sprintf("%s has %s for %s; %s", tableName(h.Table), plural(h.Dead, "dead row"), plural(h.Live, "live one"), last),
			"receivers step over dead rows, and the table grows", e.store.VacuumSQL(h.Table, "VERBOSE")+
				"; where that does not remove them somebody holds vacuum back: see transactions").inSQL())
	}
	return found, e.healthOf
}

// widest is the most that a row takes in the table itself: what is longer goes to TOAST.
const widest = 2100

func (e *examination) checkBloat(ctx context.Context) (found []Finding, err error) {
	for _, h := range e.health {
		empty := h.Bytes - h.Live*widest
		if empty < e.Bloat {
			continue
		}
		// After a crash of the server the statistics begin at nothing: look at the rows where the role may.
		if queue, is := strings.CutPrefix(h.Table, "q_"); is {
			if counted, err := e.store.EstimateReady(ctx, e.pool, []string{queue}, 300, 10000); err == nil && len(counted) == 1 {
				h.Live = counted[0].N
			} else if ctx.Err() != nil {
				return found, err
			}
			if empty = h.Bytes - h.Live*widest; empty < e.Bloat {
				continue
			}
		}
		found = append(found, warning(foundTableBloated, ofTable(h.Table), fmt.Sprintf("%s takes %s for about %s: at least %s are empty (with indexes and TOAST it takes %s)",
			tableName(h.Table), bytesText(h.Bytes), plural(h.Live, "row"), bytesText(empty), bytesText(h.TotalBytes)),
			"the space is used again and does no harm by itself; backups, vacuum and counts read it, and its indexes may be as empty",
			e.store.VacuumSQL(h.Table, "FULL")+", which locks senders and receivers out while it runs").inSQL())
	}
	return found, e.healthOf
}

func (e *examination) checkAutovacuum(context.Context) (found []Finding, err error) {
	if !e.server.Vacuums {
		found = append(found, problem(foundAutovacuumOff, Subject{}, "autovacuum, or track_counts that it needs, is off on the server",
			"dead rows stay, queues become slower and slower, and in the end the server runs out of transaction ids",
			"ALTER SYSTEM SET autovacuum = on; ALTER SYSTEM SET track_counts = on; SELECT pg_reload_conf()").inSQL())
	}
	for _, h := range e.health {
		if lost := lostOptions(h); len(lost) > 0 {
			table := h.Table
			found = append(found, warning(foundAutovacuumSettingsLost, ofTable(table), fmt.Sprintf("%s has lost settings for autovacuum: %s", tableName(table), strings.Join(lost, ", ")),
				"vacuum comes too late for a table whose rows come and go, or locks it to shrink it", e.store.SetOptionsSQL(table, lost)).inSQL().
				by(e.server.Superuser || e.server.Role == e.owner, "options of "+table, func(ctx context.Context) (string, error) {
					return "set them", e.store.SetOptions(ctx, e.pool, table, lost)
				}))
		}
	}
	return found, e.healthOf
}

// lostOptions returns the storage parameters that a table should have and has not at all, and those that turn autovacuum
// off. One that somebody has set to another value is left to them.
func lostOptions(h query.TableHealth) (lost []string) {
	if h.Table == "error" { // it has none
		return nil
	}
	wanted := slices.Clone(query.VacuumOptions.All)
	if strings.HasPrefix(h.Table, "q_") {
		wanted = append(wanted, query.VacuumOptions.Queues...)
	}
	has := func(options []string, name string) bool {
		return slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, name+"=") })
	}
	for _, o := range wanted {
		if name, _, _ := strings.Cut(o, "="); !has(h.Options, name) {
			lost = append(lost, o)
		}
	}
	if slices.Contains(h.Options, "autovacuum_enabled=false") {
		lost = append(lost, "autovacuum_enabled=true")
	}
	for _, o := range query.VacuumOptions.Toast {
		if name, _, _ := strings.Cut(o, "="); !has(h.ToastOptions, name) {
			lost = append(lost, "toast."+o)
		}
	}
	return lost
}

func (e *examination) checkHeadroom(ctx context.Context) (found []Finding, err error) {
	for _, h := range e.health {
		found = append(found, e.wraparound(h)...)
	}
	sequences, err := e.store.UsedSequences(ctx, e.pool, sequenceFor)
	for _, s := range sequences {
		found = append(found, problem(foundSequenceUsedUp, Subject{"sequence", s.Name}, fmt.Sprintf("sequence %s has given out %d of %d numbers", s.Name, s.Last, s.Most),
			"when they are used up nothing more can be stored", "find out who draws numbers from it: sqlq itself would take thousands of years"))
	}
	return found, cmp.Or(err, e.healthOf)
}

// wraparound tells of a table whose oldest rows vacuum should have frozen.
func (e *examination) wraparound(h query.TableHealth) (found []Finding) {
	for _, c := range []struct {
		kind       FindingKind
		age, limit int64
		what       string
	}{
		{foundTransactionsUnfrozen, h.XidAge, h.FreezeXids, "transactions"},
		{foundMultixactsUnfrozen, h.MultixactAge, h.FreezeMulti, "multixacts"},
	} {
		if c.limit <= 0 || c.age <= c.limit+c.limit/4 {
			continue
		}
		f := warning(c.kind, ofTable(h.Table), fmt.Sprintf("%s has rows of %d %s ago that are not frozen; autovacuum freezes from %d on", tableName(h.Table), c.age, c.what, c.limit),
			fmt.Sprintf("the server refuses to write %d %s before they wrap around; something keeps vacuum from finishing: see transactions", xidsInAll-c.age, c.what),
			e.store.VacuumSQL(h.Table, "FREEZE, VERBOSE")).inSQL()
		if c.age > xidsInAll/2 {
			f.Severity = SeverityProblem
		}
		found = append(found, f)
	}
	return found
}

func (e *examination) checkIndexes(ctx context.Context) (found []Finding, err error) {
	broken, err := e.store.BrokenIndexes(ctx, e.pool)
	for _, b := range broken {
		kind, fix, what := foundIndexInvalid, e.store.ReindexSQL(b.Index), "reads that rely on it go through the whole table"
		if strings.Contains(b.Index, "_ccnew") || strings.Contains(b.Index, "_ccold") {
			kind, fix, what = foundIndexLeftOver, e.store.DropIndexSQL(b.Index), "it is left over from a REINDEX that did not end, and every write pays for it"
		}
		found = append(found, problem(kind, Subject{"index", b.Index}, fmt.Sprintf("index %s of %s is not valid", b.Index, tableName(b.Table)), what, fix).inSQL())
	}
	return found, err
}

// tableName names a table as operators know it.
func tableName(table string) string {
	if queue, is := strings.CutPrefix(table, "q_"); is {
		return fmt.Sprintf("queue %q", queue)
	}
	return "table " + table
}

// bytesText writes a size.
func bytesText(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d kB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// oneLine is somebody's query in a line.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
