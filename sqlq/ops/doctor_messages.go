package ops

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

const (
	instancesSeen = 1_000  // instances that are looked at, the newest
	leasesSeen    = 10_000 // leases without an instance, and overdue messages
	crashMemory   = 24 * time.Hour
	moveBatch     = 1_000
	muchError     = 10 << 30         // bytes of the error table
	inboxLate     = 10 * time.Minute // the leading instance looks once a minute
)

func (e *examination) checkInstances(ctx context.Context) (found []Finding, err error) {
	seen, err := e.store.SeenInstances(ctx, e.pool, crashMemory, instancesSeen)
	if err != nil {
		return nil, err
	}
	versions := map[string]map[string]bool{} // endpoint → versions that run
	crashed := map[string][]string{}         // endpoint → when
	for _, i := range seen {
		name := fmt.Sprintf("instance %d of endpoint %q on %s (pid %d)", i.ID, i.Endpoint, i.Host, i.PID)
		switch {
		case i.Crashed != nil:
			crashed[i.Endpoint] = append(crashed[i.Endpoint], fmt.Sprintf("instance %d on %s (pid %d) %s ago", i.ID, i.Host, i.PID, i.Crashed.Round(time.Second)))
		case i.Silent > i.LeaseTime:
			found = append(found, problem(foundInstanceSilent, Subject{"instance", fmt.Sprint(i.ID)}, fmt.Sprintf("%s has crashed, or is cut off: it last said %s ago that it lives, and its lease time is %s",
				name, i.Silent.Round(time.Second), i.LeaseTime),
				"no running instance has noticed, so what it had leased is not given back", "start an endpoint, of any name, or as an operator: "+e.doctorFix()).by(e.mayFix, "recover", e.recover))
		default:
			if versions[i.Endpoint] == nil {
				versions[i.Endpoint] = map[string]bool{}
			}
			versions[i.Endpoint][i.Version] = true
		}
	}
	for _, endpoint := range slices.Sorted(maps.Keys(crashed)) {
		all := crashed[endpoint]
		found = append(found, warning(foundInstancesCrashed, Subject{"endpoint", endpoint}, fmt.Sprintf("%s of endpoint %q crashed within a day: %s", plural(int64(len(all)), "instance"), endpoint, some(all)),
			"others took its messages over; find out what killed it, or a message that does so may be among them", "sqlq error ls --queue "+shellWord(endpoint)+" --since 1d"+inSchema(e.store.Name())))
	}
	for _, endpoint := range slices.Sorted(maps.Keys(versions)) {
		if running := slices.Sorted(maps.Keys(versions[endpoint])); len(running) > 1 {
			found = append(found, note(foundVersionsDiffer, Subject{"endpoint", endpoint}, fmt.Sprintf("endpoint %q runs in %d versions: %s", endpoint, len(running), some(running)),
				"as during a rollout; an old one that was forgotten handles messages too", "sqlq instance ls"+inSchema(e.store.Name())))
		}
	}
	return found, nil
}

func (e *examination) doctorFix() string { return "sqlq doctor --fix" + inSchema(e.store.Name()) }

// recover does what the leading instance does with dead ones: marks them, and gives their messages back.
func (e *examination) recover(ctx context.Context) (string, error) {
	var names []string
	var channels []string
	var given int64
	dead, err := e.store.Instances.MarkDead(ctx, e.pool, []int32{}, true)
	if err != nil {
		return "", err
	}
	for _, d := range dead {
		names = append(names, fmt.Sprint(d.ID))
	}
	b := wholeBatch(moveBatch)
	for more := true; more; {
		recovered, err := e.store.Leases.Recover(ctx, e.pool, "", b.rows, b.bytes)
		if b.shrinkAfter(err) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("after %d: %w", given, err)
		}
		more = false
		for _, r := range recovered {
			given += int64(r.N)
			more = more || r.More && r.N > 0
			if r.Channel != "" && !slices.Contains(channels, r.Channel) {
				channels = append(channels, r.Channel)
			}
		}
	}
	for _, c := range channels {
		if err := e.wake(ctx, c); err != nil {
			return "", err
		}
	}
	if len(names) == 0 {
		return fmt.Sprintf("gave %s back", plural(given, "leased message")), nil
	}
	return fmt.Sprintf("marked %s as crashed (%s) and gave %s back", plural(int64(len(names)), "instance"), strings.Join(names, ", "),
		plural(given, "leased message")), nil
}

func (e *examination) checkLeases(ctx context.Context) (found []Finding, err error) {
	orphans, err := e.store.OrphanedLeases(ctx, e.pool, leasesSeen)
	for _, o := range orphans {
		what := fmt.Sprintf("queue %q: %s without a running instance, the oldest for %s", o.Queue, atLeast(o.N, leasesSeen, "leased message"), o.Oldest.Round(time.Second))
		if o.Gone {
			found = append(found, problem(foundLeasesOfDroppedQueue, Subject{"queue", o.Queue}, what+"; the queue is gone", "nobody handles them, and nothing can give them back", "sqlq queue create "+shellWord(o.Queue)+inSchema(e.store.Name())+", then as an operator: "+e.doctorFix()))
			continue
		}
		found = append(found, problem(foundLeasesOrphaned, Subject{"queue", o.Queue}, what, "nobody handles them until an instance runs that gives them back", "start an endpoint, of any name, or as an operator: "+e.doctorFix()).by(e.mayFix, "recover", e.recover))
	}
	return found, err
}

func (e *examination) checkDelayed(ctx context.Context) (found []Finding, err error) {
	overdue, err := e.store.OverdueDelayed(ctx, e.pool, e.Late, leasesSeen)
	for _, o := range overdue {
		found = append(found, problem(foundDelayedOverdue, Subject{"queue", o.Queue}, fmt.Sprintf("queue %q: %s overdue, the first for %s, and nobody moves them",
			o.Queue, atLeast(o.N, leasesSeen, "delayed message"), o.Oldest.Round(time.Second)),
			"the leading instance moves what is due; none runs, or it may not", "start an endpoint, of any name, or as an operator: "+e.doctorFix()).by(e.mayFix, "move", e.moveDue))
	}
	return found, err
}

// moveDue does what the leading instance does with delayed messages that are due, in batches.
func (e *examination) moveDue(ctx context.Context) (string, error) {
	var moved int64
	var from time.Time
	var locked []string
	b := wholeBatch(moveBatch)
	for {
		batch, err := e.store.Delayed.MoveDue(ctx, e.pool, from, b.rows, b.bytes, locked, false)
		if b.shrinkAfter(err) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("after %d: %w", moved, err)
		}
		if len(batch) == 0 {
			return fmt.Sprintf("moved %s", plural(moved, "delayed message")), nil
		}
		for _, m := range batch {
			if moved += int64(m.N); m.N == 0 { // somebody has its table for long: they are overdue still
				locked = append(locked, m.Queue)
			} else if m.LastDue.After(from) {
				from = m.LastDue
			}
			if err := e.wake(ctx, m.Channel); err != nil {
				return "", err
			}
		}
	}
}

func (e *examination) checkBacklog(ctx context.Context) (found []Finding, err error) {
	seen, err := e.store.SeenInstances(ctx, e.pool, 0, instancesSeen)
	if err != nil {
		return nil, err
	}
	alive := map[string]bool{}
	for _, i := range seen {
		alive[i.Endpoint] = alive[i.Endpoint] || i.Silent <= i.LeaseTime
	}
	for _, queue := range e.queues {
		if alive[queue] {
			continue
		}
		counted, err := e.store.CountReady(ctx, e.pool, []string{queue}, nil, 1)
		if sqlState(err) == insufficientPrivilege || sqlState(err) == undefinedTable {
			continue // not this role's, or just dropped
		}
		if err != nil {
			return found, err
		}
		if len(counted) == 1 && counted[0].OldestAge != nil && *counted[0].OldestAge > e.Late {
			found = append(found, warning(foundBacklogUnhandled, Subject{"queue", queue}, fmt.Sprintf("queue %q: messages wait, the first for %s, and no instance of that endpoint runs", queue, counted[0].OldestAge.Round(time.Second)),
				"nobody handles them", "start the endpoint, or look at them: sqlq queue peek "+shellWord(queue)+inSchema(e.store.Name())))
		}
	}
	return found, nil
}

func (e *examination) checkInbox(ctx context.Context) (found []Finding, err error) {
	stuck, err := e.store.StuckInboxes(ctx, e.pool, inboxLate, e.Late)
	for _, i := range stuck {
		what := fmt.Sprintf("inbox %q keeps ids of handled messages for %s, and has forgotten none for %s", i.Name, i.Keeps, i.Since.Round(time.Second))
		const why = "ids pile up on the disk, and the longer they do the longer it takes to look for one"
		switch {
		case i.Prepared != "":
			found = append(found, warning(foundInboxBlocked, Subject{"inbox", i.Name}, fmt.Sprintf("%s: prepared transaction %q of %q has its tables", what, i.Prepared, i.User),
				why, query.RollbackPreparedSQL(i.Prepared)).inSQL())
		case i.PID != 0:
			found = append(found, warning(foundInboxBlocked, Subject{"inbox", i.Name}, fmt.Sprintf("%s: backend %d of %q has its tables, in a transaction that has been open for %s: %s",
				what, i.PID, i.User, i.Open.Round(time.Second), oneLine(i.Query)), why, query.EndSessionSQL(i.PID)).inSQL())
		default:
			cause := "; the leading instance forgets them: none runs, or its role may not"
			if !e.server.Statistics && !e.server.Superuser {
				cause += ", or somebody has its tables for long, whom this role may not see"
			}
			found = append(found, warning(foundInboxNotEmptied, Subject{"inbox", i.Name}, what, why+cause,
				"start an endpoint, of any name; where one runs, grant its role again: sqlq grant ROLE consumer"))
		}
	}
	return found, err
}

func (e *examination) checkPaused(ctx context.Context) (found []Finding, err error) {
	paused, err := e.store.PausedQueues(ctx, e.pool)
	for _, p := range paused {
		by := ""
		if p.By != "" {
			by = " by " + oneLine(p.By)
		}
		found = append(found, warning(foundQueuePaused, Subject{"queue", p.Queue}, fmt.Sprintf("queue %q: paused%s since %s", p.Queue, by, p.Since.UTC().Format(time.RFC3339)),
			"its messages wait", "sqlq queue resume "+shellWord(p.Queue)+inSchema(e.store.Name())))
	}
	return found, err
}

func (e *examination) checkErrors(ctx context.Context) (found []Finding, err error) {
	for _, h := range e.health {
		if h.Table == "error" && h.TotalBytes > muchError {
			found = append(found, note(foundErrorTableLarge, ofTable(h.Table), fmt.Sprintf("the error table takes %s for about %s", bytesText(h.TotalBytes), plural(h.Live, "message")),
				"nothing removes failed messages by itself", "sqlq error groups, then replay, or export and delete them"))
		}
	}
	n, err := e.store.FailedSince(ctx, e.pool, time.Hour, int(e.Failures)+1)
	if n > e.Failures {
		found = append(found, warning(foundFailuresMany, Subject{}, fmt.Sprintf("more than %d messages failed within an hour", e.Failures),
			"something that they need is broken, or a release of a service is", "sqlq error groups --since 1h"+inSchema(e.store.Name())))
	}
	return found, err
}

// atLeast writes a number that was counted up to a limit.
func atLeast(n, limit int64, noun string) string {
	if n >= limit {
		return fmt.Sprintf("%d %ss or more", n, noun)
	}
	return plural(n, noun)
}
