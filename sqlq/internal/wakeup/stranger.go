package wakeup

import (
	"context"
	"fmt"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// tellOfStrangers logs which sessions keep receivers from sleeping, and returns when to check that.
func (l *Listener) tellOfStrangers(ctx context.Context, s *listening) (time.Duration, error) {
	st, now := &l.strangers, time.Now()
	regular := st.Looked.Add(session.StrangersEvery)
	next := now.Add(time.Hour)
	refused, standBy := map[string]bool{}, map[string]bool{} // queues whose sleeper's lock, and whose watch, others have
	l.each(func(bell *Bell, p *post) {
		due := next
		switch {
		case p.refusals > 0 && p.wish == asleep: // mostly because of a sender's probe, which is over by then
			if due = p.refused.Add(listenerLate); !due.After(st.Looked) {
				due = regular
			}
			refused[bell.Queue] = !now.Before(p.refused.Add(listenerLate))
		case p.rests() == OnCall:
			due = regular
			standBy[bell.Queue] = true
		}
		if due.Before(next) {
			next = due
		}
	})
	if st.HasTold() && regular.Before(next) {
		next = regular
	}
	if pause := next.Sub(now); pause > 0 {
		return pause, nil
	}
	st.Looked = now
	found, err := l.Store.Sessions.Strangers(ctx, s.c)
	if err != nil {
		return 0, fmt.Errorf("look for who holds locks: %w", err)
	}
	st.Tell(found, func(f store.Stranger) string {
		if f.Lock == store.LockSleeper && refused[f.Queue] || f.Lock == store.LockWatch && standBy[f.Queue] {
			return "receivers look every second instead of being woken"
		}
		return ""
	})
	return session.StrangersEvery, nil
}
