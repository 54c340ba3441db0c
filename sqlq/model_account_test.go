package sqlq_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// fate is what the sender of a message knows.
type fate int

const (
	rolledBack fate = iota // it was never sent
	committed
	unknown // the connection was lost before the answer came
)

// lifetime is what a message's delay and time to live mean for it.
type lifetime string

const (
	ordinary    lifetime = ""
	waits       lifetime = "waits"        // delayed beyond the end of the round
	mayExpire   lifetime = "may expire"   // or be handled
	diesWaiting lifetime = "dies waiting" // expires when its delay ends
)

// line is one message on one queue, as it is planned.
type line struct {
	key, queue string
	inTx       bool
	task       task
	life       lifetime
	parent     *line // whose handler sends it; nil: fate says whether it was sent
	fate       fate
	copies     [2]int // of one that is sent more than once with its id: committed, and unknown
}

// visit is one call of a handler.
type visit struct {
	n          int // of all visits
	attempt    int
	id         sqlq.ID
	flow       string // conversation id
	began      time.Time
	completed  bool // it returned nil and nothing in it was to fail
	overlapped bool // another visit was under way when it began
	ended      bool
	givesBack  bool // the message is given back in the end, whatever else it does
}

// books are what a round is accounted by.
type books struct {
	mu       sync.Mutex
	lines    map[string]*line    // by place
	visits   map[string][]*visit // by place
	n        int
	kills    []time.Time
	problems []string
	told     tellings
}

func place(key, queue string) string { return key + " on " + queue }

// enter plans a message and everything that its handlers will send. It returns the lines of the message itself.
func (b *books) enter(kind string, t task, parent *line, life lifetime) []*line {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.plan(kind, t, parent, life)
}

func (b *books) plan(kind string, t task, parent *line, life lifetime) []*line {
	var own []*line
	for _, queue := range kinds[kind].queues {
		l := &line{key: t.Key, queue: queue, inTx: slices.Contains(kinds[kind].inTx, queue), task: t, life: life, parent: parent}
		b.lines[place(l.key, l.queue)] = l
		own = append(own, l)
		for i, ch := range t.Children {
			ch.Task.Key = fmt.Sprintf("%s@%s/%d", t.Key, queue, i)
			b.plan(ch.Kind, ch.Task, l, ordinary)
		}
	}
	return own
}

// settleFate notes how a send of the library's own transaction went.
func (w *world) settleFate(sent []*line, err error, what string) {
	switch {
	case err == nil:
		w.setFate(sent, committed)
	case w.mayFail(err):
		w.setFate(sent, unknown)
	default:
		w.problem("%s %s: %v", what, sent[0].key, err)
	}
}

func (b *books) setFate(sent []*line, f fate) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range sent {
		l.fate = f
	}
}

func (b *books) problem(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problems = append(b.problems, fmt.Sprintf(format, args...))
}

func (b *books) note(kill time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kills = append(b.kills, kill)
}

func (b *books) arrive(in *sqlq.Incoming, key string, back int) *visit {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n++
	v := &visit{n: b.n, attempt: in.Attempt, id: in.ID, flow: in.ConversationID, began: time.Now()}
	p := place(key, in.Endpoint)
	for _, other := range b.visits[p] {
		v.overlapped = v.overlapped || !other.ended
		if other.givesBack {
			back--
		}
	}
	v.givesBack = back > 0
	b.visits[p] = append(b.visits[p], v)
	return v
}

func (b *books) leave(v *visit, completed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v.ended, v.completed = true, completed
}

// repeated counts the visits to messages that a handler had completed before.
func (b *books) repeated() (repeated, visits int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, vs := range b.visits {
		visits += len(vs)
		for i := range vs {
			if i > 0 && vs[i-1].completed {
				repeated++
			}
		}
	}
	return repeated, visits
}

// found is what the database has of a message on a queue when all is quiet.
type found struct {
	delayed, failed, effects int
	attempts                 int
	errorType, message       string
	stack                    bool
	came, went, ids          int // by the audit: transactions that added it or took it away, and different ids
	torn                     int // by the audit: transactions that changed the number of its copies by another number
}

// account holds the books against the database.
//
// Every message that was committed, or sent by a handler that was settled, is in exactly one place: handled, in the
// error table, expired, or still delayed; with the audit, at every commit on the way too. None is anywhere that was
// rolled back or sent by a failing attempt. What handlers wrote in the receive transaction is there exactly once for
// each handled message and not at all for others. Plain handlers complete a message at least once, and more often only
// where a fault or a refusal explains it. Attempts count up from 1, and messages fail with as many as their endpoint's
// policy says.
func (w *world) account() {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.find()
	for p, l := range w.lines {
		f := all[p]
		if f == nil {
			f = &found{}
		}
		w.check(p, l, f, all)
	}
	for p := range all {
		if w.lines[p] == nil {
			w.blame("%s: nobody sent it, but the database has it: %+v", p, *all[p])
		}
	}
	for p := range w.visits {
		if w.lines[p] == nil {
			w.blame("%s: nobody sent it, but a handler was called", p)
		}
	}
	w.checkHotRows(all)
	w.checkInstances()
	slices.Sort(w.problems)
	for i, problem := range w.problems {
		if i == 30 {
			w.t.Errorf("and %d more", len(w.problems)-i)
			break
		}
		w.t.Error(problem)
	}
}

// blame is problem for those that have the books in hand.
func (w *world) blame(format string, args ...any) {
	w.problems = append(w.problems, fmt.Sprintf(format, args...))
}

// find reads from the database what there is of each message.
func (w *world) find() map[string]*found {
	all := map[string]*found{}
	at := func(key, queue string) *found {
		p := place(key, queue)
		if all[p] == nil {
			all[p] = &found{}
		}
		return all[p]
	}
	var key, queue string
	var body []byte
	w.each(`SELECT queue, body FROM sqlq.delayed`, []any{&queue, &body}, func() { at(keyOf(body), queue).delayed++ })
	var e found
	w.each(`SELECT queue, body, attempts, error_type, message, stack IS NOT NULL FROM sqlq.error`,
		[]any{&queue, &body, &e.attempts, &e.errorType, &e.message, &e.stack}, func() {
			f := at(keyOf(body), queue)
			f.failed++
			f.attempts, f.errorType, f.message, f.stack = e.attempts, e.errorType, e.message, e.stack
		})
	w.each(`SELECT key, queue FROM effect`, []any{&key, &queue}, func() { at(key, queue).effects++ })
	if w.audited {
		w.each(`
			SELECT key, queue, count(DISTINCT id), count(*) FILTER (WHERE n = 1), count(*) FILTER (WHERE n = -1), count(*) FILTER (WHERE abs(n) > 1)
			FROM (SELECT key, queue, id, sum(n) AS n FROM audit GROUP BY key, queue, id, tx) a GROUP BY key, queue`,
			[]any{&key, &queue, &e.ids, &e.came, &e.went, &e.torn}, func() {
				f := at(key, queue)
				f.ids, f.came, f.went, f.torn = e.ids, e.came, e.went, e.torn
			})
	}
	return all
}

func (w *world) each(sql string, into []any, then func()) {
	rows, err := w.db.Query(context.Background(), sql)
	if err == nil {
		_, err = pgx.ForEachRow(rows, into, func() error { then(); return nil })
	}
	if err != nil {
		w.t.Errorf("%s: %v", sql, err)
	}
}

// exists says whether a message came into being; known is false where nobody can say but the database.
func (w *world) exists(l *line, all map[string]*found) (exists, known bool) {
	if l.parent == nil {
		return l.fate == committed, l.fate != unknown
	}
	return w.handled(l.parent, all)
}

// handled says whether a message was handled and removed.
func (w *world) handled(l *line, all map[string]*found) (handled, known bool) {
	exists, known := w.exists(l, all)
	if known && !exists {
		return false, true
	}
	f := all[place(l.key, l.queue)]
	switch {
	case l.twice() && w.faults && f != nil && f.failed > 0 && !foresee(l.task, w.policies[l.queue]).fails:
		return false, false // one of them may have been handled
	case f != nil && f.failed > 0, l.life == waits, l.life == diesWaiting:
		return false, true
	case l.inTx:
		return f != nil && f.effects > 0, true
	}
	for _, v := range w.visits[place(l.key, l.queue)] {
		handled = handled || v.completed
	}
	return handled, !handled || l.queue != "most" || !w.faults // what it sent may be lost
}

// check accounts for one message on one queue.
func (w *world) check(p string, l *line, f *found, all map[string]*found) {
	visits := w.visits[p]
	exists, known := w.exists(l, all)
	seen := len(visits) > 0 || *f != found{}
	switch {
	case known && !exists:
		if seen {
			w.blame("%s: never sent (fate %d, parent %v), but: %+v, %d visits", p, l.fate, l.parent != nil, *f, len(visits))
		}
		return
	case !known && !seen:
		return
	}
	w.checkTold(p, l, f, visits)
	if w.checkByChoice(p, l, f, visits) {
		return
	}
	if w.audited && (f.ids != 1 || f.came != 1 || f.torn != 0 || f.went > 1 || f.went+f.delayed+f.failed != 1) {
		w.blame("%s: not in exactly one place all the time: %+v", p, *f)
	}
	w.checkVisits(p, l, visits)
	completed := 0
	for _, v := range visits {
		if v.completed {
			completed++
		}
	}
	want := foresee(l.task, w.policies[l.queue])
	gone := w.faults && f.failed == 1 && (strings.Contains(f.message, sqlq.ErrCrashed.Error()) || strings.Contains(f.message, sqlq.ErrConnectionLost.Error()))
	switch {
	case l.life == waits:
		if f.delayed != 1 || f.failed+f.effects+len(visits) > 0 {
			w.blame("%s: delayed for an hour, want it delayed and nothing else: %+v, %d visits", p, *f, len(visits))
		}
	case l.life == diesWaiting:
		if f.delayed+f.failed+f.effects+len(visits) > 0 {
			w.blame("%s: expired before its time, want it nowhere: %+v, %d visits", p, *f, len(visits))
		}
	case l.life == mayExpire:
		if f.delayed+f.failed > 0 || f.effects > 1 { // a refused batch is handled again, and may find it expired
			w.blame("%s: may expire or be handled: %+v, %d visits", p, *f, len(visits))
		}
	case gone:
		// Taken for the killer of its process, or of its connection, as often as that is borne.
		if f.effects+f.delayed+completed > 0 && (l.inTx || f.effects > 0) {
			w.blame("%s: failed by faults, but: %+v, %d completed", p, *f, completed)
		}
	case want.fails:
		w.checkFailure(p, l, f, want, completed)
	case l.inTx:
		if f.effects != 1 || f.delayed+f.failed > 0 || completed == 0 {
			w.blame("%s: want its effect once: %+v, %d visits, %d completed", p, *f, len(visits), completed)
		}
	default:
		if completed == 0 || f.effects+f.delayed+f.failed > 0 {
			w.blame("%s: want it handled: %+v, %d visits, %d completed", p, *f, len(visits), completed)
		}
	}
}

func (w *world) checkFailure(p string, l *line, f *found, want ending, completed int) {
	if f.failed != 1 || f.delayed+f.effects+completed > 0 {
		w.blame("%s: want it failed after %d attempts (%s): %+v, %d completed", p, want.attempts, l.task.How, *f, completed)
		return
	}
	// A message that was in hand when its process was taken for dead has that attempt counted, too.
	if f.attempts != want.attempts && !(w.faults && f.attempts > want.attempts) {
		w.blame("%s: failed after %d attempts, want %d (%s)", p, f.attempts, want.attempts, l.task.How)
	}
	if (l.task.How == byPanic) != f.stack && !w.faults {
		w.blame("%s: stack of its failure kept: %v (%s, %s)", p, f.stack, l.task.How, f.message)
	}
}

// checkVisits holds the calls of a message's handlers against each other.
func (w *world) checkVisits(p string, l *line, visits []*visit) {
	last := 0
	for i, v := range visits {
		switch {
		case !v.ended:
			w.blame("%s: a handler is still under way", p)
		case v.id != visits[0].id:
			w.blame("%s: handled with ids %v and %v", p, visits[0].id, v.id)
		case w.faults && i > 0 && (visits[i-1].completed && !l.inTx || v.overlapped) && !w.killedBetween(visits[i-1].began, v.began):
			w.blame("%s: handled again (attempt %d) after it was completed, without a fault that explains it", p, v.attempt)
		case w.faults:
		case w.refusals && !l.inTx: // a refused batch frees those that are under way, too
		case v.overlapped:
			w.blame("%s: two handlers at once, attempt %d", p, v.attempt)
		case i > 0 && visits[i-1].completed && l.twice() && !l.inTx:
			w.blame("%s: handled again (attempt %d) after it was completed", p, v.attempt)
		case l.twice(): // each of them counts its own attempts
		case l.inTx: // those whose batch was refused, or yielded, come again with the same attempt
			if v.attempt > last+1 {
				w.blame("%s: attempt %d follows attempt %d", p, v.attempt, last)
			}
		case v.attempt != last+1:
			w.blame("%s: attempt %d follows attempt %d", p, v.attempt, last)
		case i > 0 && visits[i-1].completed:
			w.blame("%s: handled again (attempt %d) after it was completed", p, v.attempt)
		}
		if last = v.attempt; v.givesBack {
			last-- // it does not count
		}
	}
	if l.parent == nil || len(visits) == 0 {
		return
	}
	if above := w.visits[place(l.parent.key, l.parent.queue)]; len(above) > 0 && above[0].flow != visits[0].flow && !l.sentByTx() {
		w.blame("%s: conversation %s, that of the message whose handler sent it is %s", p, visits[0].flow, above[0].flow)
	}
}

// sentByTx says whether a handler sent the message past its delivery, which leaves the conversation behind.
func (l *line) sentByTx() bool {
	if !l.parent.inTx {
		return false
	}
	for i, ch := range l.parent.task.Children {
		if l.key == fmt.Sprintf("%s@%s/%d", l.parent.key, l.parent.queue, i) {
			return ch.Tx
		}
	}
	return false
}

// killedBetween says whether a fault may have hit a message: a connection died while it was in hand, or so shortly before
// that its instance was taken for dead meanwhile.
func (w *world) killedBetween(from, to time.Time) bool {
	from = from.Add(-2 * w.leaseTime())
	return slices.ContainsFunc(w.kills, func(kill time.Time) bool { return kill.After(from) && kill.Before(to) })
}

func (w *world) checkHotRows(all map[string]*found) {
	want, got := map[int]int{}, map[int]int{}
	for _, l := range w.lines {
		if f := all[place(l.key, l.queue)]; l.inTx && f != nil {
			want[l.task.Hot] += f.effects
		}
	}
	delete(want, 0)
	maps.DeleteFunc(want, func(_, n int) bool { return n == 0 })
	var id, n int
	w.each(`SELECT id, n FROM hot WHERE n > 0`, []any{&id, &n}, func() { got[id] = n })
	if !maps.Equal(got, want) {
		w.blame("contended rows were raised %v times, want %v", got, want)
	}
}

// checkInstances holds that every instance says how it ended.
func (w *world) checkInstances() {
	var id int
	var endpoint string
	var crashed bool
	w.each(`SELECT id, endpoint, crashed_at IS NOT NULL FROM sqlq.instance WHERE drained_at IS NULL AND host <> 'of the past'`, []any{&id, &endpoint, &crashed}, func() {
		switch {
		case !crashed && !w.faults:
			w.blame("instance %d of endpoint %s ended without a word", id, endpoint)
		case crashed && !w.faults:
			w.blame("instance %d of endpoint %s was taken for dead", id, endpoint)
		}
	})
}

// audit has triggers write down each message that comes into a table or goes out of it, with the transaction. A message
// that is moved comes and goes in one transaction, so the number of its copies changes by one when it is sent, by one
// when it is settled for good, and never else.
func (w *world) audit() {
	execSQL(w.t, w.db, `
		CREATE TABLE audit (tx xid8, n int, tab text, id uuid, queue text, key text);
		CREATE FUNCTION audit_came() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			INSERT INTO public.audit SELECT pg_current_xact_id(), 1, TG_TABLE_NAME, m.id, coalesce(to_jsonb(m) ->> 'queue', substr(TG_TABLE_NAME, 3)),
				convert_from(m.body, 'UTF8')::json ->> 'Key' FROM m;
			RETURN NULL;
		END $$;
		CREATE FUNCTION audit_went() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			INSERT INTO public.audit SELECT pg_current_xact_id(), -1, TG_TABLE_NAME, m.id, coalesce(to_jsonb(m) ->> 'queue', substr(TG_TABLE_NAME, 3)),
				convert_from(m.body, 'UTF8')::json ->> 'Key' FROM m;
			RETURN NULL;
		END $$;
		DO $$
		DECLARE tab text;
		BEGIN
			FOREACH tab IN ARRAY ARRAY['q_plain', 'q_tx', 'q_mixed', 'q_most', 'q_once', 'delayed', 'leased', 'error'] LOOP
				EXECUTE format('CREATE TRIGGER came AFTER INSERT ON sqlq.%I REFERENCING NEW TABLE AS m FOR EACH STATEMENT EXECUTE FUNCTION audit_came()', tab);
				EXECUTE format('CREATE TRIGGER went AFTER DELETE ON sqlq.%I REFERENCING OLD TABLE AS m FOR EACH STATEMENT EXECUTE FUNCTION audit_went()', tab);
			END LOOP;
		END $$`)
}
