package sqlq

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// strangersEvery is the pause between looks for strangers, while a lock is refused that others may have with good reason.
const strangersEvery = 10 * time.Second

// strangers are sessions that hold locks of the library's, and of which it was said. Each goroutine that is refused locks has
// its own.
type strangers struct {
	log    *slog.Logger
	looked time.Time // when last
	told   map[store.Stranger]bool
}

// tell says once of each that it holds a lock, and what that costs, and once that it does not any more.
func (s *strangers) tell(found []store.Stranger, costs func(store.Stranger) string) {
	here := map[store.Stranger]bool{}
	for _, f := range found {
		cost := costs(f)
		if cost == "" {
			continue
		}
		here[f] = true
		if !s.told[f] {
			s.log.Warn("sqlq: a session that is none of sqlq's holds one of its advisory locks; "+cost, attrsOf(f)...)
		}
	}
	for f := range s.told {
		if !here[f] {
			s.log.Info("sqlq: an advisory lock is free again that another session had", attrsOf(f)...)
		}
	}
	s.told = here
}

func attrsOf(f store.Stranger) []any {
	attrs := []any{"lock", f.Lock}
	if f.Queue != "" {
		attrs = append(attrs, "queue", f.Queue)
	}
	return append(attrs, "pid", f.PID, "application", f.Application, "user", f.User, "advice", fmt.Sprintf("SELECT pg_terminate_backend(%d)", f.PID))
}

// tellOfStrangers says who keeps receivers from sleeping, and returns when to look for that.
func (l *listener) tellOfStrangers(ctx context.Context, s *listening) (time.Duration, error) {
	st, now := &l.strangers, time.Now()
	regular := st.looked.Add(strangersEvery)
	next := now.Add(time.Hour)
	refused, standBy := map[string]bool{}, map[string]bool{} // queues whose sleeper's lock and whose watch others have
	l.mu.Lock()
	for in, p := range l.posts {
		due := next
		switch {
		case p.refusals > 0 && p.wish == asleep: // mostly to a sender's probe, which is over by then
			if due = p.refused.Add(listenerLate); !due.After(st.looked) {
				due = regular
			}
			refused[in.endpoint.Name] = !now.Before(p.refused.Add(listenerLate))
		case p.rests() == onCall:
			due = regular
			standBy[in.endpoint.Name] = true
		}
		if due.Before(next) {
			next = due
		}
	}
	l.mu.Unlock()
	if len(st.told) > 0 && regular.Before(next) {
		next = regular
	}
	if pause := next.Sub(now); pause > 0 {
		return pause, nil
	}
	st.looked = now
	found, err := l.run.client.store.Strangers(ctx, s.c)
	if err != nil {
		return 0, fmt.Errorf("look for who holds locks: %w", err)
	}
	st.tell(found, func(f store.Stranger) string {
		if f.Lock == store.LockSleeper && refused[f.Queue] || f.Lock == store.LockWatch && standBy[f.Queue] {
			return "receivers look every second instead of being woken"
		}
		return ""
	})
	return strangersEvery, nil
}
