package sqlq

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

const (
	raiseEvery = 250 * time.Millisecond
	// keepEvery and keepApart bound how often the queue's row is written: it is read by everybody, and cannot be
	// vacuumed either.
	keepEvery, keepApart = 5 * time.Second, 10_000
)

// restart has all instances fetch from the left end again: a connection was lost, so the server may be another one, or
// have crashed and set a sequence back.
func (r *runner) restart() {
	for _, in := range r.instances.now() {
		in.source.forget()
	}
}

// raiser moves low on, on the connection that keeps house. Its fields are that goroutine's.
type raiser struct {
	run    *runner
	raised time.Time
	kept   time.Time // when a low was last written

	mayNotRaise, mayNotKeep bool // the role lacks the privilege
}

// raiseInTime raises low every raiseEvery, and returns when to be called again. A role that may not goes without: it is an
// optimisation.
func (r *raiser) raiseInTime(ctx context.Context, c *session.Conn) (again time.Duration, err error) {
	if r.mayNotRaise || !r.run.raises() {
		return time.Hour, nil
	}
	if time.Since(r.raised) < raiseEvery {
		return raiseEvery, nil
	}
	r.raised = time.Now()
	err = r.raise(ctx, c)
	if session.State(err) == session.InsufficientPrivilege {
		r.mayNotRaise = true
		r.run.client.log.Warn("sqlq: this role may not read the sequences of the queues, so fetches from a queue that cannot be vacuumed become slow; grant SELECT on the sequences of the schema", "schema", r.run.client.config.Schema, "err", err)
		return raiseEvery, nil
	}
	return raiseEvery, err
}

// raise raises low for the instances whose queues have moved, in steps of about a second: note the highest number given
// out, then who is writing; once those have all ended, nothing can appear at or below that number any more, and low can
// go up to the lowest message there is. The order of the three is what makes it right: whoever took a number up to hi
// had the table's lock before, and is seen writing until it has ended.
func (r *raiser) raise(ctx context.Context, c *session.Conn) error {
	var noted, idle []*instance
	for _, in := range r.run.instances.now() {
		switch raising, moved := in.source.raises(); {
		case raising:
			noted = append(noted, in)
		case moved:
			idle = append(idle, in)
		}
	}
	if err := r.finishRaise(ctx, c, noted); err != nil {
		return fmt.Errorf("raise where fetches start: %w", err)
	}
	if err := r.beginRaise(ctx, c, idle); err != nil {
		return fmt.Errorf("raise where fetches start: %w", err)
	}
	return nil
}

func (r *raiser) beginRaise(ctx context.Context, c *session.Conn, ins []*instance) error {
	st := r.run.client.store
	if len(ins) == 0 {
		return nil
	}
	queues := namesOf(ins)
	sequences, err := st.Low.Sequences(ctx, c, queues)
	if err != nil {
		return err
	}
	tables, err := st.Tables.Ready(ctx, c, queues)
	if err != nil {
		return err
	}
	for i := len(ins) - 1; i >= 0; i-- {
		if sequences[i] == "" { // dropped
			ins, queues = slices.Delete(ins, i, i+1), slices.Delete(queues, i, i+1)
			sequences, tables = slices.Delete(sequences, i, i+1), slices.Delete(tables, i, i+1)
		}
	}
	if len(ins) == 0 {
		return nil
	}
	epochs := epochsOf(ins)
	var his []int64
	var writers []store.Writer
	b := &pgx.Batch{}
	st.Low.LastValues(b, sequences, &his)
	st.Tables.Writers(b, tables, &writers)
	if err := c.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	var setBack []*instance
	for i, in := range ins {
		if in.source.beginRaise(epochs[i], his[i], store.TransactionsOn(writers, tables[i])) {
			setBack = append(setBack, in)
		}
	}
	for _, in := range setBack {
		in.wake()                                                        // for what has come at or below low
		if _, err := st.Low.Read(ctx, c, in.endpoint.Name); err != nil { // what is kept is to be forgotten before the sequence has passed it
			return err
		}
	}
	return nil
}

func (r *raiser) finishRaise(ctx context.Context, c *session.Conn, ins []*instance) error {
	if len(ins) == 0 {
		return nil
	}
	st := r.run.client.store
	epochs := epochsOf(ins)
	tables, err := st.Tables.Ready(ctx, c, namesOf(ins))
	if err != nil {
		return err
	}
	var writers []store.Writer
	b := &pgx.Batch{}
	st.Tables.Writers(b, tables, &writers)
	if err := c.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	var ready []*instance
	var queues []string
	var lows, firsts []int64
	for i, in := range ins {
		if tables[i] == 0 {
			in.source.forget()
		} else if low, has := in.source.mayRaise(epochs[i], store.TransactionsOn(writers, tables[i])); has {
			ready, queues, lows = append(ready, in), append(queues, in.endpoint.Name), append(lows, low)
		}
	}
	if len(ready) == 0 {
		return nil
	}
	epochs = epochsOf(ready)
	b = &pgx.Batch{}
	st.Low.FirstAfter(b, queues, lows, &firsts)
	if err := c.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	for i, in := range ready {
		in.source.raise(epochs[i], firsts[i])
	}
	return r.keepLow(ctx, c, ready)
}

// keepLow writes what was found to the queues' rows, for processes that start.
func (r *raiser) keepLow(ctx context.Context, c *session.Conn, ins []*instance) error {
	if r.mayNotKeep || time.Since(r.kept) < keepEvery {
		return nil
	}
	var queues []string
	var lows []int64
	for _, in := range ins {
		if low, has := in.source.keep(); has {
			queues, lows = append(queues, in.endpoint.Name), append(lows, low)
		}
	}
	if len(queues) == 0 {
		return nil
	}
	r.kept = time.Now()
	err := r.run.client.store.Low.Keep(ctx, c, queues, lows)
	if session.State(err) == session.InsufficientPrivilege { // it is an optimisation
		r.mayNotKeep, err = true, nil
	}
	return err
}

// keepLast is keepLow at the end of the process, for the one that starts in its place.
func (r *raiser) keepLast(c *session.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	r.kept = time.Time{}
	if err := r.keepLow(ctx, c, r.run.instances.now()); err != nil {
		r.run.client.log.Warn("sqlq: cannot keep where messages begin; the next process looks for it", "err", err)
	}
}

// raises says whether any instance has something to raise.
func (r *runner) raises() bool {
	for _, in := range r.instances.now() {
		if raising, moved := in.source.raises(); raising || moved {
			return true
		}
	}
	return false
}

func namesOf(ins []*instance) []string {
	names := make([]string, len(ins))
	for i, in := range ins {
		names[i] = in.endpoint.Name
	}
	return names
}

func epochsOf(ins []*instance) []int {
	epochs := make([]int, len(ins))
	for i, in := range ins {
		epochs[i] = in.source.era()
	}
	return epochs
}

// raises reports whether a raise of low is under way, and whether messages have come since the last one began.
func (s *source) raises() (raising, moved bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at.raising, s.at.active
}

// era counts how often the source has begun anew.
func (s *source) era() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at.epoch
}

// beginRaise notes the highest number that was given out, and who wrote then. It reports whether somebody has set the sequence back.
func (s *source) beginRaise(epoch int, hi int64, writers map[string]bool) (setBack bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch at := &s.at; {
	case at.epoch != epoch:
	case hi < at.low:
		at.reset()
		return true
	default:
		at.raising, at.active, at.hi, at.writers = true, false, hi, writers
	}
	return false
}

// mayRaise takes in who still writes, and reports whether all have ended whom a raise waits for; then it returns the low from
// which on to look for the first message.
func (s *source) mayRaise(epoch int, writing map[string]bool) (low int64, may bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.at.writers, func(tx string, _ bool) bool { return !writing[tx] })
	return s.at.low, s.at.epoch == epoch && len(s.at.writers) == 0
}

// raise ends a raise: low goes up to the first message that there is, or to what had been given out.
func (s *source) raise(epoch int, first int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := &s.at; at.epoch == epoch {
		at.raising = false
		at.low = at.hi
		if first > 0 && first <= at.hi {
			at.low = first - 1
		}
	}
}

// keep returns low if it is to be written to the queue's row, because it has gone up far enough.
func (s *source) keep() (low int64, has bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at.low < s.at.kept+keepApart {
		return 0, false
	}
	s.at.kept = s.at.low
	return s.at.low, true
}
