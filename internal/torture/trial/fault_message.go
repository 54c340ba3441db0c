package trial

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
)

// poisoner sends messages that are themselves a fault, among neighbours that are not.
type poisoner struct {
	child      // sends as one, but lives here
	neighbours int
}

func (t *trial) newPoisoner(ctx context.Context, neighbours int) (*poisoner, error) {
	pool, err := pgxpool.New(ctx, t.site.url(nil))
	if err != nil {
		return nil, err
	}
	client, err := sqlq.Open(ctx, pool, sqlq.Config{Routes: routes})
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &poisoner{child: child{pool: pool, client: client}, neighbours: neighbours}, nil
}

// messageFaults sends a message of each bad kind in turn. The pause is about what it takes to see the end of one.
func (t *trial) messageFaults(p *poisoner, shortest, pause time.Duration) lane {
	next := firstKey(1 << 20) // no process has that number
	l := lane{name: "messages", shortest: shortest, pause: pause}
	for _, do := range []deed{exits, kills, crashes, gorges, hangs, panicEver, differs} {
		l.faults = append(l.faults, fault{"message_" + kindOf(do), func(ctx context.Context, r *rand.Rand, kind string) bool {
			b := &batch{First: next, N: 1 + p.neighbours, To: poisonQueue, How: "many"}
			b.Do = make([]deed, b.N)
			b.Do[r.IntN(b.N)] = do
			next += key(b.N)
			t.ledger.take("the trial", line{Try: b})
			bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			t.faults.struck(kind, poisonQueue, "sent, from %d on", b.First)()
			if err := p.sendBatch(bounded, b); err != nil {
				t.ledger.take("the trial", line{Err: b.First, Why: err.Error()})
			} else {
				t.ledger.take("the trial", line{Ack: b.First})
			}
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
