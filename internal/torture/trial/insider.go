package trial

import (
	"context"

	"github.com/sqlq/sqlq/internal/lab"
	"github.com/sqlq/sqlq/sqlq"
)

// Numbers that no process has, whose keys insiders' messages have.
const (
	poisonerRun = 1 << 20
	strangerRun = poisonerRun + 1
)

// insider sends from within the trial's own process, as a child would. What it sends is in the ledger like everybody's.
type insider struct {
	child
	trial *trial
	who   string // in the ledger
	next  key
}

// newInsider connects as a role, with the keys of a process of a number.
func newInsider(ctx context.Context, t *trial, who, role string, run int) (*insider, error) {
	pool, err := lab.NewPool(ctx, t.site.urlOf(role, nil), 4, nil)
	if err != nil {
		return nil, err
	}
	client, err := sqlq.Open(ctx, pool, sqlq.Config{Routes: routes})
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &insider{child: child{pool: pool, client: client}, trial: t, who: who, next: firstKey(run)}, nil
}

// enter gives a batch its keys and enters into the ledger that it is tried, and what do says became of it.
func (s *insider) enter(b *batch, do func() error) error {
	b.First = s.next
	s.next += key(b.N)
	s.trial.ledger.take(s.who, line{Try: b})
	if err := do(); err != nil {
		s.trial.ledger.take(s.who, line{Err: b.First, Why: err.Error()})
		return err
	}
	s.trial.ledger.take(s.who, line{Ack: b.First})
	return nil
}
