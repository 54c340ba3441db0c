package sqlq_test

import (
	"context"

	"github.com/sqlq/sqlq/sqlq"
)

// What Endpoint.Settled is told is held against what became of each message.

// tellings counts what was told of each message in each endpoint.
type tellings map[copyOf]map[sqlq.Outcome]int

type copyOf struct {
	id       sqlq.ID
	endpoint string
}

// tell is the Settled of all endpoints.
func (b *books) tell(_ context.Context, s sqlq.Settled) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := copyOf{s.ID, s.Endpoint}
	if b.told == nil {
		b.told = tellings{}
	}
	if b.told[at] == nil {
		b.told[at] = map[sqlq.Outcome]int{}
	}
	b.told[at][s.Outcome]++
}

// checkTold wants one end told of a message that was handled or has failed, where nothing disturbs the commits; else no more than one, unless
// a plain message was handled again.
func (w *world) checkTold(p string, l *line, f *found, visits []*visit) {
	if len(visits) == 0 || l.twice() {
		return
	}
	told := w.told[copyOf{visits[0].id, l.queue}]
	ends := told[sqlq.OutcomeComplete] + told[sqlq.OutcomeFail] + told[sqlq.OutcomeExpired]
	switch {
	case ends > 1, told[sqlq.OutcomeFail] > f.failed, told[sqlq.OutcomeComplete] > 0 && f.failed+f.delayed > 0:
		w.blame("%s: told %v, but: %+v", p, told, *f)
	case !w.faults && (ends != 1 || told[sqlq.OutcomeFail] != f.failed) && f.delayed == 0:
		w.blame("%s: told %v, want its end once: %+v", p, told, *f)
	}
}
