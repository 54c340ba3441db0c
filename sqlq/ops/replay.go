package ops

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// ReplayOptions has the options of Replay. The zero value has the defaults.
type ReplayOptions struct {
	// To is the queue that the messages go to.
	// Default: each to the one it came from. Unit: the name of a queue. Cost: none.
	To string

	ChangeOptions
}

// Replay moves the failed messages that a filter chooses back to their queues, the oldest first, and returns how many, also
// together with an error. Messages that fail after it began are left alone, so are archived ones; times that count from now
// count from its beginning. A replayed message keeps its id and the time it was sent, and starts again at attempt 0; a time
// to live that has passed is taken off, because the message would be dropped at once.
//
// It works in batches, each a transaction that moves the messages, adds to their history and says in the operation table
// how far it came: a message is in the error table or in its queue, whatever happens. Two that run at once share the
// messages, and each is replayed once; a message that another transaction has locked at that moment is skipped. One that was interrupted
// returns an *InterruptedError, and Operations.Resume does the rest, also after a crash. When nothing is chosen, no operation is
// written down.
//
// Messages whose queue is gone stay and are reported by a *QueueGoneError, named messages that do not exist by a *NoFailedError; the
// others are replayed all the same.
func (o Failed) Replay(ctx context.Context, f Filter, opts ReplayOptions) (replayed int64, err error) {
	if opts.To != "" {
		if err := o.mustExist(ctx, opts.To); err != nil {
			return 0, err
		}
	}
	return o.changeFailed(ctx, kindReplay, f, opts)
}

// Archive marks the failed messages that a filter chooses as archived, and returns how many, also together with an error:
// they are kept, and left out of lists and replays. It works like Replay.
func (o Failed) Archive(ctx context.Context, f Filter, opts ChangeOptions) (archived int64, err error) {
	return o.changeFailed(ctx, kindArchive, f, ReplayOptions{ChangeOptions: opts})
}

// Unarchive takes the archived messages that a filter chooses back among the failed ones, and returns how many, also
// together with an error. It works like Replay.
func (o Failed) Unarchive(ctx context.Context, f Filter, opts ChangeOptions) (taken int64, err error) {
	return o.changeFailed(ctx, kindUnarchive, f, ReplayOptions{ChangeOptions: opts})
}

// Delete removes the failed messages that a filter chooses for good, archived ones too if its Status says so, and returns
// how many, also together with an error. What is left of them is their history. It works like Replay.
func (o Failed) Delete(ctx context.Context, f Filter, opts ChangeOptions) (deleted int64, err error) {
	return o.changeFailed(ctx, kindDelete, f, ReplayOptions{ChangeOptions: opts})
}

// changeFailed writes an operation down and performs it.
func (o Failed) changeFailed(ctx context.Context, kind string, f Filter, opts ReplayOptions) (changed int64, err error) {
	p, err := o.plan(ctx, kind, f, opts)
	if err != nil {
		return 0, err
	}
	within := countWithin
	if opts.UpTo.Messages != nil {
		within = countPinnedWithin
	}
	n, sure, err := o.countPlan(ctx, p, within)
	if err == nil {
		err = opts.UpTo.check(n, sure)
	}
	if err != nil {
		return 0, err
	}
	if sure && n == 0 {
		return 0, o.told(ctx, p, 0)
	}
	if err := o.skipOlder(ctx, o.pool, &p); err != nil {
		return 0, err
	}
	c := change{plan: p, running: running{kind: kind, opts: opts.ChangeOptions}}
	op := query.Operation{UpTo: &p.upTo}
	if sure {
		c.wanted = &n
	}
	if opts.To != "" {
		op.Queue = &opts.To
	}
	if err = o.start(ctx, &c.running, write(p.filter, opts.Rate), op, place(p.after)); err != nil {
		return 0, err
	}
	if changed, err = o.perform(ctx, &c); err != nil {
		return changed, err
	}
	return changed, o.told(ctx, c.plan, changed)
}

// plan is what a change of failed messages sets out to do.
type plan struct {
	kind    string
	filter  Filter // its times absolute
	chosen  query.Filter
	to      string           // a queue; "": each its own
	except  []string         // queues that are gone, whose messages stay
	after   *query.FailedKey // messages up to there are left alone; nil: none
	upTo    int64            // messages with higher numbers failed after it began
	at      time.Time        // when it began, by the clock of the database
	limit   int64
	unnamed error // *NoFailedError for names that are not there
}

func (o Failed) plan(ctx context.Context, kind string, f Filter, opts ReplayOptions) (p plan, err error) {
	if f, err = opts.narrow(f); err != nil {
		return p, err
	}
	if f.Status == "" {
		f.Status = StatusFailed
		if kind == kindUnarchive {
			f.Status = StatusArchived
		}
	}
	switch {
	case (kind == kindReplay || kind == kindArchive) && f.Status != StatusFailed:
		return p, fmt.Errorf("only messages with status %q can be replayed or archived, not %q", StatusFailed, f.Status)
	case kind == kindUnarchive && f.Status != StatusArchived:
		return p, fmt.Errorf("only messages with status %q can be taken out of the archive, not %q", StatusArchived, f.Status)
	case f.ChoosesAll() && !f.All:
		return p, ErrFilterEmpty
	}
	if p.chosen, err = o.choose(ctx, f); err != nil {
		return p, err
	}
	now, err := o.store.FailedSnapshot(ctx, o.pool)
	if err != nil {
		return p, fmt.Errorf("read the last number of the error table: %w", err)
	}
	if p.upTo = opts.UpTo.number(now.Last); opts.UpTo.taken() {
		now.At = opts.UpTo.At
	}
	f.Since, f.Until = f.Since.from(now.At), f.Until.from(now.At)
	p.kind, p.filter, p.to, p.at, p.limit = kind, f, opts.To, now.At, int64(f.limit())
	p.chosen.Since, p.chosen.Until = f.Since.stored(), f.Until.stored()
	if p.unnamed, err = o.missing(ctx, f, p.chosen); err != nil {
		return p, err
	}
	return p, o.exceptGone(ctx, &p)
}

// exceptGone has a replay leave out the messages of queues that are gone.
func (o Failed) exceptGone(ctx context.Context, p *plan) error {
	if p.kind != kindReplay || p.to != "" || p.chosen.Queues != nil { // those that may be seen are there
		return nil
	}
	if queue := p.chosen.Queue; queue != "" {
		exists, err := o.store.QueueExists(ctx, o.pool, queue)
		if err != nil {
			return fmt.Errorf("look for queue %q: %w", queue, err)
		}
		if !exists {
			p.except = []string{queue}
		}
		return nil
	}
	queues, err := o.store.FailedQueues(ctx, o.pool)
	if err != nil {
		return fmt.Errorf("list queues of failed messages: %w", err)
	}
	for _, q := range queues {
		if !q.Exists {
			p.except = append(p.except, q.Name)
		}
	}
	return nil
}

// skipOlder has a plan that is about the newest so many messages begin at the first of them.
func (o Failed) skipOlder(ctx context.Context, db store.DBTX, p *plan) error {
	if p.filter.Order != Newest || p.limit == math.MaxInt {
		return nil
	}
	first, err := o.store.NewestPlanned(ctx, db, p.chosen, p.except, p.upTo, p.limit)
	if err != nil {
		return fmt.Errorf("look for the newest %d messages: %w", p.limit, err)
	}
	if first != nil {
		p.after = &query.FailedKey{FailedAt: first.FailedAt, Seq: first.Seq - 1}
	}
	return nil
}

// place returns a place in the order of failure as it stands in the operation table.
func place(k *query.FailedKey) query.Place {
	if k == nil {
		return query.Place{}
	}
	return query.Place{At: k.FailedAt, Seq: k.Seq}
}

// told returns what there is to say after a plan has been done: names that were not there, queues that are gone, or one
// that never was.
func (o Failed) told(ctx context.Context, p plan, changed int64) error {
	err := p.unnamed
	gone, lookErr := o.goneOf(ctx, p)
	if lookErr != nil {
		return lookErr
	}
	if gone != nil {
		err = errors.Join(err, &QueueGoneError{Queues: gone})
	}
	if err == nil && changed == 0 {
		err = o.checkQueue(ctx, p.filter.Queue)
	}
	return err
}

// goneOf returns the queues that are gone and whose messages the plan would have chosen.
func (o Failed) goneOf(ctx context.Context, p plan) (queues []string, err error) {
	for _, name := range p.except {
		f := p.chosen
		if f.Queue != "" && f.Queue != name {
			continue
		}
		f.Queue = name
		any, err := o.store.AnyFailed(ctx, o.pool, f, p.upTo)
		if err != nil {
			return nil, fmt.Errorf("look for messages of queue %q: %w", name, err)
		}
		if any {
			queues = append(queues, name)
		}
	}
	return queues, nil
}

// missing returns a *NoFailedError when some of the messages that a filter names are not there with its status.
func (o Failed) missing(ctx context.Context, f Filter, chosen query.Filter) (unnamed, err error) {
	if len(f.Names) == 0 {
		return nil, nil
	}
	found, err := o.store.NamedFailed(ctx, o.pool, chosen.Seqs, chosen.IDs)
	if err != nil {
		return nil, fmt.Errorf("look for the named messages: %w", err)
	}
	status := map[string]Status{}
	for _, m := range found {
		for _, name := range []string{strconv.FormatInt(m.Seq, 10), m.ID} {
			if status[name] != f.Status { // of several copies one may have another
				status[name] = Status(m.Status)
			}
		}
	}
	var lacking NoFailedError
	for _, name := range f.Names {
		seq, id, err := parseName(name)
		if err != nil {
			return nil, err
		}
		if id == "" {
			id = strconv.FormatInt(seq, 10)
		}
		switch has := status[id]; {
		case has == "":
			lacking.Missing = append(lacking.Missing, name)
		case has == f.Status || f.Status == StatusAny:
		case has == StatusArchived:
			lacking.Archived = append(lacking.Archived, name)
		default:
			lacking.Failed = append(lacking.Failed, name)
		}
	}
	if lacking.Missing == nil && lacking.Archived == nil && lacking.Failed == nil {
		return nil, nil
	}
	return &lacking, nil
}
