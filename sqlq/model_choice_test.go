package sqlq_test

import (
	"context"
	"time"

	"github.com/sqlq/sqlq/sqlq"
)

// The part of the model that is about guarantees by choice: endpoint most handles at most once, endpoint once deduplicates,
// and senders send to it more than once with one id.

// twice says whether a message was sent more than once with its id.
func (l *line) twice() bool { return l.copies != [2]int{} }

// twice sends a message two or three times with one id, at once or a little later.
func (s *sender) twice(ctx context.Context, d draft) {
	id := sqlq.NewID()
	d.task.ID = id.String()
	options := append(d.options, sqlq.WithID(id))
	entered := s.enter(d.kind, d.task, nil, d.life)
	fate := rolledBack
	var copies [2]int
	for range 2 + s.IntN(2) {
		switch err := s.client.Send(ctx, d.message(), options...); {
		case err == nil:
			fate = committed
			copies[0]++
		case s.mayFail(err):
			if fate == rolledBack {
				fate = unknown
			}
			copies[1]++
		default:
			s.problem("send twice %s: %v", d.task.Key, err)
		}
		if s.in(30) {
			pause(ctx, s.Rand, 60*time.Millisecond)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range entered {
		l.fate, l.copies = fate, copies
	}
}

// checkByChoice accounts for a message that was sent more than once, or whose endpoint handles at most once; false for
// all others.
func (w *world) checkByChoice(p string, l *line, f *found, visits []*visit) bool {
	switch {
	case l.queue == "most":
		w.checkAtMostOnce(p, l, f, visits)
	case l.twice():
		w.checkDeduplicated(p, l, f, visits)
	default:
		return false
	}
	if w.audited && (f.ids != 1 || f.came-f.went != f.delayed+f.failed && f.torn == 0) {
		w.blame("%s: it came %d times and went %d times, but: %+v", p, f.came, f.went, *f)
	}
	return true
}

// checkAtMostOnce wants a message handled once, or failed after its one attempt. Where connections die it may be lost, with
// or without its handler having run.
func (w *world) checkAtMostOnce(p string, l *line, f *found, visits []*visit) {
	completed := 0
	for _, v := range visits {
		if v.completed {
			completed++
		}
		if v.attempt != 1 || !v.ended {
			w.blame("%s: attempt %d, ended %v", p, v.attempt, v.ended)
		}
	}
	want, ends := foresee(l.task, w.policies[l.queue]), completed+f.failed+f.delayed
	switch {
	case len(visits) > 1:
		w.blame("%s: %d handlers were called, want at most one", p, len(visits))
	case l.life == waits && ends == f.delayed && f.delayed == 1, l.life == diesWaiting && ends == 0, l.life == mayExpire && ends == completed:
	case ends == 0 && w.faults && len(w.kills) > 0 && l.life == ordinary: // it is lost
	case f.failed == 1 && want.fails:
		// What the server refused of one that completed fails it: then both are so.
		if f.attempts != 1 || f.delayed > 0 {
			w.blame("%s: want it failed after one attempt: %+v", p, *f)
		}
	case want.fails, completed != 1, f.failed+f.delayed > 0:
		w.blame("%s: want it handled once, or failed (%v): %+v, %d visits, %d completed", p, want.fails, *f, len(visits), completed)
	}
}

// checkDeduplicated wants one of a message's copies handled, or each of them failed.
func (w *world) checkDeduplicated(p string, l *line, f *found, visits []*visit) {
	w.checkVisits(p, l, visits)
	completed := 0
	for _, v := range visits {
		if v.completed {
			completed++
		}
	}
	want, least, most := foresee(l.task, w.policies[l.queue]), l.copies[0], l.copies[0]+l.copies[1]
	switch {
	case f.delayed > 0:
		w.blame("%s: still delayed: %+v", p, *f)
	case want.fails:
		if f.failed < least || f.failed > most || f.effects+completed > 0 {
			w.blame("%s: want each of its %d to %d copies failed: %+v, %d completed", p, least, most, *f, completed)
		}
		if f.attempts != want.attempts && !(w.faults && f.attempts > want.attempts) {
			w.blame("%s: failed after %d attempts, want %d (%s)", p, f.attempts, want.attempts, l.task.How)
		}
	case w.faults && f.failed > 0: // taken for the killers of their processes or connections
		if f.effects > 1 || f.failed > most {
			w.blame("%s: failed by faults: %+v, of %d copies", p, *f, most)
		}
	case f.failed > 0, completed == 0, l.inTx && f.effects != 1, !l.inTx && f.effects != 0:
		w.blame("%s: want one of its %d to %d copies handled: %+v, %d visits, %d completed", p, least, most, *f, len(visits), completed)
	}
}

// rotate has the inbox written in its other table from now on, once in a round, unless too much is in hand at the moment.
// Ids are known from both, so that nothing may come of it.
func (w *world) rotate(ctx context.Context) {
	_, err := w.db.Exec(ctx, `UPDATE sqlq.inbox SET rotated_at = clock_timestamp() - interval '4 hours' WHERE name = 'hours' AND current = 'a'`)
	if err == nil {
		_, err = w.db.Exec(ctx, `SELECT sqlq.rotate_inbox()`)
	}
	if err != nil && ctx.Err() == nil && sqlStateOf(err) != "55P03" {
		w.t.Errorf("rotate the inbox: %v", err)
	}
}
