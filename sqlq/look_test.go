package sqlq

import (
	"fmt"
	"testing"
	"time"
)

// A wake-up that comes while a fetch is under way that finds nothing is not lost, although source and lookout are told of it one after
// the other: wherever it falls, the instance stays awake, or is told after it has gone to sleep and so looks again; and low, to the
// right of which the fetch has looked, is doubted now or by the next one.
func TestWakeUpDuringAFetch(t *testing.T) {
	t.Parallel()
	for told := range 3 { // how many of the fetch's two steps are done before the source is told,
		for noted := told; noted < 3; noted++ { // and before the lookout is
			t.Run(fmt.Sprint(told, " ", noted), func(t *testing.T) {
				t.Parallel()
				now := time.Now()
				l, s := newLookout(), source{}
				s.at = scattered{low: 100, known: true, lastZero: now, doubted: now.Add(-2 * doubtEvery)} // it may be doubted for a wake-up only
				l.begin()
				wakes := l.at(now).wakes
				p, ok := s.claim(now, 500)
				if !ok || !p.leftmost {
					t.Fatalf("it looks after %d", p.after)
				}
				doubts := false
				for step := range 3 {
					if step == told {
						s.woke(false)
					}
					if step == noted {
						l.woke()
					}
					switch step {
					case 0:
						doubts, _ = s.fetched(&p, nil, 0, false)
					case 1:
						l.fetched(wakes, doubts)
					}
				}
				s.scanned(&p)
				if awake := l.at(now).awake; awake != (noted < 2 || doubts) {
					t.Errorf("it is awake: %v", awake)
				}
				if doubts == s.at.woken {
					t.Errorf("it doubts low now: %v, later: %v", doubts, s.at.woken)
				}
			})
		}
	}
}

// Of two fetches that are under way at the same time the first to come back short ends a look, and a paused queue is not looked at.
func TestLook(t *testing.T) {
	t.Parallel()
	l := newLookout()
	if !l.begin() || !l.at(time.Now()).awake {
		t.Fatal("it does not look")
	}
	wakes := l.at(time.Now()).wakes
	if l.came(1); l.fetched(wakes, true) {
		t.Error("there is more, and nobody is thought to look")
	}
	if l.fetched(wakes, false); len(l.short) != 1 || l.at(time.Now()).awake {
		t.Error("the end was seen, and nobody is told")
	}
	if n := l.end(); n != 1 {
		t.Errorf("%d fetches brought something", n)
	}
	if !l.fetched(wakes, true) {
		t.Error("there is more, and somebody is thought to look")
	}
	if l.setPaused(true) || l.begin() || !l.at(time.Now()).forbidden {
		t.Error("it is paused and looks")
	}
	if !l.setPaused(false) || !l.begin() {
		t.Error("it is resumed and does not look")
	}
}
