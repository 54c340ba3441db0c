package trial

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/sqlq/sqlq/internal/lab"
)

// incident is something that happened, for the timeline and to explain repeats.
type incident struct {
	kind       string // of fault; "" for what is none
	on         string // a process, or everybody
	text       string
	began      time.Time
	ended      time.Time
	underway   bool
	everywhere bool
}

const everybody = "everybody"

// faults is the record of what was done to the processes, and of what they did then.
type faults struct {
	mu        sync.Mutex
	incidents []*incident
	counts    map[string]int
}

func newFaults() *faults { return &faults{counts: map[string]int{}} }

// happened records what is no fault.
func (f *faults) happened(on, format string, args ...any) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.incidents = append(f.incidents, &incident{on: on, text: fmt.Sprintf(format, args...), began: now, ended: now})
}

// struck records a fault that begins now, and counts it. What it returns says that it is over.
func (f *faults) struck(kind, on, format string, args ...any) (over func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := &incident{kind: kind, on: on, text: fmt.Sprintf(format, args...), began: time.Now(), underway: true, everywhere: on == everybody}
	f.incidents = append(f.incidents, i)
	f.counts[kind]++
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		i.ended, i.underway = time.Now(), false
	}
}

func (f *faults) counted() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.counts)
}

// within returns what overlaps a span of time, in the order of its beginning.
func (f *faults) within(from, to time.Time) (found []incident) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range f.incidents {
		if !i.began.After(to) && (i.underway || !i.ended.Before(from)) {
			found = append(found, *i)
		}
	}
	return found
}

// explains says whether something happened to the process, or to everybody, in a span of time.
func (f *faults) explains(process string, from, to time.Time) bool {
	for _, i := range f.within(from, to) {
		if i.everywhere || i.on == process && !strings.HasPrefix(i.text, "started") {
			return true
		}
	}
	return false
}

// nameOf returns the name of the process with a number.
func (f *faults) nameOf(run int) string {
	suffix := fmt.Sprintf("#%d", run)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range f.incidents {
		if strings.HasSuffix(i.on, suffix) {
			return i.on
		}
	}
	return suffix
}

// struckSince says whether anything was done to anybody since a time, but for poison, which has receivers of its own.
func (f *faults) struckSince(when time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range f.incidents {
		if i.kind != "" && i.on != poisonQueue && (i.underway || !i.ended.Before(when)) {
			return true
		}
	}
	return false
}

// fault is a kind of fault. strike does it, and returns when it is over, or, when it lasts, has it end in the background;
// false when there was nobody to strike.
type fault struct {
	kind   string
	strike func(ctx context.Context, r *rand.Rand, kind string) bool
}

// lane does one fault after another. Lanes run at the same time, so that faults meet.
type lane struct {
	name            string
	shortest, pause time.Duration // between two: from shortest to shortest + pause
	faults          []fault
}

// run does every kind of fault once in a random order, again and again, until ctx ends.
func (l lane) run(ctx context.Context, seed uint64) {
	r := rand.New(rand.NewPCG(seed, mix(uint64(len(l.name))<<8|uint64(l.name[0]))))
	var bag []fault
	for {
		if len(bag) == 0 {
			bag = append(bag, l.faults...)
			r.Shuffle(len(bag), func(i, j int) { bag[i], bag[j] = bag[j], bag[i] })
		}
		if lab.Sleep(ctx, l.shortest+time.Duration(r.Float64()*float64(l.pause))) != nil {
			return
		}
		for try := 0; try < 20 && ctx.Err() == nil; try++ {
			if bag[0].strike(ctx, r, bag[0].kind) {
				break
			}
			_ = lab.Sleep(ctx, 50*time.Millisecond)
		}
		bag = bag[1:]
	}
}

// between returns a random duration.
func between(r *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(r.Float64()*float64(to-from))
}

// lasting runs the end of a fault in the background; the trial waits for it before it goes on to drain.
func (t *trial) lasting(f func()) { t.background.Go(f) }
