package session

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// StrangersEvery is the pause between checks for strangers, while a lock is refused that others may rightly hold.
const StrangersEvery = 10 * time.Second

// Strangers are sessions that hold the library's locks and were reported in the log. Each goroutine that is refused locks has
// its own.
type Strangers struct {
	Log    *slog.Logger
	Looked time.Time // when they were last checked
	told   map[store.Stranger]bool
}

// Tell logs once for each that it holds a lock, and what that costs, and once that it no longer does.
func (s *Strangers) Tell(found []store.Stranger, costs func(store.Stranger) string) {
	here := map[store.Stranger]bool{}
	for _, f := range found {
		cost := costs(f)
		if cost == "" {
			continue
		}
		here[f] = true
		if !s.told[f] {
			s.Log.Warn("sqlq: a session that is none of sqlq's holds one of its advisory locks; "+cost, attrsOf(f)...)
		}
	}
	for f := range s.told {
		if !here[f] {
			s.Log.Info("sqlq: an advisory lock is free again that another session had", attrsOf(f)...)
		}
	}
	s.told = here
}

// HasTold reports whether some that were logged still hold locks, as far as is known.
func (s *Strangers) HasTold() bool { return len(s.told) > 0 }

func attrsOf(f store.Stranger) []any {
	attrs := []any{"lock", f.Lock}
	if f.Queue != "" {
		attrs = append(attrs, "queue", f.Queue)
	}
	return append(attrs, "pid", f.PID, "application", f.Application, "user", f.User, "advice", fmt.Sprintf("SELECT pg_terminate_backend(%d)", f.PID))
}
