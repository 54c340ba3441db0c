package trial

import (
	"context"
	"math/rand/v2"
	"time"
)

// messageFaults sends a message of each bad kind in turn, among neighbours that are not bad. The pause is about what it takes to
// see the end of one.
func messageFaults(poisoner *insider, shortest, pause time.Duration) lane {
	const neighbours = 8
	l := lane{name: "messages", shortest: shortest, pause: pause}
	for _, do := range []deed{exits, kills, crashes, gorges, hangs, panicEver, differs} {
		l.faults = append(l.faults, fault{"message_" + kindOf(do), func(ctx context.Context, r *rand.Rand, kind string) bool {
			b := &batch{N: 1 + neighbours, To: poisonQueue, How: "many"}
			b.Do = make([]deed, b.N)
			b.Do[r.IntN(b.N)] = do
			bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			_ = poisoner.enter(b, func() error { // the ledger has the error
				poisoner.trial.faults.struck(kind, poisonQueue, "sent, from %d on", b.First)()
				return poisoner.sendBatch(bounded, b)
			})
			return true
		}})
	}
	return l
}

func kindOf(do deed) string {
	switch do {
	case panicEver:
		return "panic"
	case differs:
		return "differs"
	case gorges:
		return "memory"
	}
	return string(do)
}
