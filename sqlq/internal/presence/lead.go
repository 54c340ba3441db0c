package presence

import (
	"context"
	"fmt"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

func (k *Keeper) Leads() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.leads
}

// LeadIsVacant makes the keeper try to lead at once.
func (k *Keeper) LeadIsVacant() {
	k.mu.Lock()
	k.vacant = true
	k.mu.Unlock()
	k.nudge()
}

// tryLead makes this process the leader if there is none: with the session lock or, without a session or if a stranger
// has that lock, as the oldest living instance, which is checked each time. late says that something was left undone.
// If some processes lead one way and some the other, there may be two leaders; everything is still done once.
func (k *Keeper) tryLead(ctx context.Context, late bool) (err error) {
	st, leads := k.Store, k.Leads()
	switch {
	case k.conn.Pooled:
		leads, err = st.Lead.Eldest(ctx, k.conn, k.numbers())
	case !leads || k.byAge:
		if leads, err = st.Lead.Try(ctx, k.conn); err == nil {
			leads, err = k.tryLeadByAge(ctx, leads, late)
		}
	}
	if err != nil {
		return err
	}
	k.lead(leads)
	return nil
}

// lead notes whether this process leads, and reports changes.
func (k *Keeper) lead(leads bool) {
	k.mu.Lock()
	did := k.leads
	k.leads = leads
	k.mu.Unlock()
	if did != leads {
		k.Led(leads)
	}
}

// leaderEvery is the pause between checks whether a stranger has the leader's lock, while nothing is left undone.
const leaderEvery = time.Minute

// tryLeadByAge reports whether this process leads: it does if it has the leader's lock, or if a stranger has that lock and
// one of this process's instances is the oldest.
func (k *Keeper) tryLeadByAge(ctx context.Context, has, late bool) (leads bool, err error) {
	st := k.Store
	if !has && !late && !k.byAge && time.Since(k.strangers.Looked) < leaderEvery || has && !k.strangers.HasTold() {
		k.byAge = false
		return has, nil
	}
	k.strangers.Looked = time.Now()
	found, err := st.Sessions.Strangers(ctx, k.conn)
	if err != nil {
		return false, fmt.Errorf("look for who holds locks: %w", err)
	}
	k.byAge = false
	k.strangers.Tell(found, func(f store.Stranger) string {
		if f.Lock != store.LockLead || has {
			return ""
		}
		k.byAge = true
		return "the process of the oldest instance leads instead of the one that has the lock"
	})
	if !k.byAge {
		return has, nil
	}
	return st.Lead.Eldest(ctx, k.conn, k.numbers())
}

// handOver gives up the lead, if this process has it, and tells the others, one of which takes it at once. If that fails
// they notice at their next heartbeats.
func (k *Keeper) handOver(ctx context.Context) {
	if !k.Leads() {
		return
	}
	k.lead(false)
	st := k.Store
	if k.conn != nil && !k.conn.IsClosed() && !k.conn.Pooled && !k.byAge {
		if _, err := st.Lead.Leave(ctx, k.conn); err != nil {
			k.disconnect() // which releases the lock
		}
	}
	err := k.onOwn(ctx, func(db store.DBTX) error {
		delayed, _, err := st.Tables.Shared(ctx, db)
		if err != nil {
			return err
		}
		return st.Wakeups.Notify(ctx, db, []string{delayed.LeadChannel()})
	})
	if err != nil {
		k.Log.Warn("sqlq: cannot hand over the lead; another process takes it at its next heartbeat", "err", err)
	}
}
