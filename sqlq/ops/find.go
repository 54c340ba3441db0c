package ops

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// Place is where a message can be.
type Place string

const (
	PlaceReady    Place = "ready"    // in its queue, or held by a receiver at this moment
	PlaceDelayed  Place = "delayed"  // it waits for its time
	PlaceLeased   Place = "leased"   // an instance holds a lease on it
	PlaceFailed   Place = "failed"   // in the error table
	PlaceArchived Place = "archived" // likewise, and kept there
)

// Copy is a message in a place. An event has a copy for each queue that was subscribed to it.
type Copy struct {
	Place    Place     // where it is
	Queue    string    // whose it is
	Number   int64     // by which it can be named there: seq, number or lease
	Type     string    // the message type
	Attempts int       // that have ended
	SentAt   time.Time // by the clock of the database
	At       time.Time // when it failed, is due or was leased; of a ready one: when it was sent
	Instance int       // of a leased message: the number of the instance that holds the lease; else 0
	Error    string    // with which its last attempt failed; "": none is known
}

// MarshalJSON writes the copy as sqlq find -o json does.
func (c Copy) MarshalJSON() ([]byte, error) {
	return encode(struct {
		Place    Place     `json:"place"`
		Queue    string    `json:"queue"`
		Number   int64     `json:"number"`
		Type     string    `json:"type"`
		Attempts int       `json:"attempts"`
		SentAt   time.Time `json:"sent_at"`
		At       time.Time `json:"at"`
		Instance int       `json:"instance"`
		Error    string    `json:"error"`
	}{c.Place, c.Queue, c.Number, c.Type, c.Attempts, timeAsJSON(c.SentAt), timeAsJSON(c.At), c.Instance, c.Error})
}

// Found is where a message is.
type Found struct {
	ID       string   // of the message
	Copies   []Copy   // where it is now
	History  []Past   // what operators did to it
	Unlooked []Unseen // where it could not be looked for: it may be there
}

// MarshalJSON writes it as sqlq find -o json does.
func (f Found) MarshalJSON() ([]byte, error) {
	return encode(struct {
		ID       string   `json:"id"`
		Copies   []Copy   `json:"copies"`
		History  []Past   `json:"history"`
		Unlooked []Unseen `json:"not_looked_at"`
	}{f.ID, listed(f.Copies), listed(f.History), listed(f.Unlooked)})
}

// Unseen is a place that could not be searched.
type Unseen struct {
	Place Place  `json:"place"` // where it was not looked for
	Queue string `json:"queue"` // "": of all queues
	Why   string `json:"why"`   // for want of a privilege, or of time
}

// FindOptions has the options of Find. The zero value has the defaults.
type FindOptions struct {
	// Queue is the only queue to look into.
	// Default: all. Unit: the name of a queue. Cost: none.
	Queue string
	// Budget is the time for searching the ready messages, whose ids have no index: some two million messages per second. Queues for
	// which it is too short are in Found.Unlooked.
	// Default: 3 s. Cost: longer: the database reads for so long.
	Budget time.Duration
}

// findRows is how many ready messages one statement looks at.
const findRows = 100_000

// Find returns all copies of the message with that id and where they are now. A message that is in none of these places was handled,
// was never stored, or has expired. A message that moves from one place to another during the search may be missed.
func (o *Ops) Find(ctx context.Context, id string, opts FindOptions) (found Found, err error) {
	if found.ID, err = parseID(id); err != nil {
		return found, err
	}
	if err := o.checkQueue(ctx, opts.Queue); err != nil {
		return found, err
	}
	f := Filter{Names: []string{found.ID}, Queue: opts.Queue, Status: StatusAny}
	look := func(place Place, queue string, do func() error) {
		if err != nil {
			return
		}
		switch failed := do(); {
		case failed == nil:
		case sqlState(failed) == insufficientPrivilege:
			found.Unlooked = append(found.Unlooked, Unseen{place, queue, "this role may not"})
		case sqlState(failed) == queryCanceled && ctx.Err() == nil:
			found.Unlooked = append(found.Unlooked, Unseen{place, queue, "it took too long"})
		default:
			err = failed
		}
	}
	// In the order in which messages move, so that one is rather found twice than missed: a queue first.
	queues := []string{opts.Queue}
	if opts.Queue == "" {
		if queues, err = o.Queues.Names(ctx); err != nil {
			return found, err
		}
	}
	budget := opts.Budget
	if budget <= 0 {
		budget = 3 * time.Second
	}
	until := time.Now().Add(budget)
	for _, queue := range queues {
		look(PlaceReady, queue, func() error { return o.findReady(ctx, queue, until, &found) })
	}
	look(PlaceDelayed, opts.Queue, func() error {
		f.Status = ""
		list, err := o.Delayed.List(ctx, f)
		for _, m := range list {
			found.Copies = append(found.Copies, Copy{PlaceDelayed, m.Queue, m.Number, m.Type, m.Attempts, m.SentAt, m.DueAt, 0, m.Error})
		}
		return err
	})
	look(PlaceLeased, opts.Queue, func() error {
		list, err := o.Leases.List(ctx, LeaseFilter{Names: []string{found.ID}, Queue: opts.Queue})
		for _, l := range list {
			found.Copies = append(found.Copies, Copy{PlaceLeased, l.Queue, l.Number, l.Type, l.Attempt, l.SentAt, l.LeasedAt, l.Instance, ""})
		}
		return err
	})
	look(PlaceFailed, opts.Queue, func() error {
		f.Status = StatusAny
		list, err := o.Failed.List(ctx, f)
		for _, m := range list {
			found.Copies = append(found.Copies, Copy{Place(m.Status), m.Queue, m.Number, m.Type, m.Attempts, m.SentAt, m.FailedAt, 0, m.Error})
		}
		return err
	})
	look("history", "", func() (err error) {
		found.History, err = o.History(ctx, found.ID)
		return err
	})
	return found, err
}

// findReady looks through a queue, from its newest message on, until a time.
func (o *Ops) findReady(ctx context.Context, queue string, until time.Time, found *Found) error {
	last, err := o.store.LastReady(ctx, o.pool, queue)
	for err == nil && last > 0 {
		var seen []query.Peeked
		done, upTo := false, last
		if left := time.Until(until); left > 0 {
			done, err = o.within(ctx, max(leastTime, left), func(tx pgx.Tx) (err error) {
				seen, upTo, err = o.store.FindReady(ctx, tx, queue, found.ID, last, findRows)
				return err
			})
		}
		if err == nil && !done {
			found.Unlooked = append(found.Unlooked, Unseen{PlaceReady, queue, fmt.Sprintf("the time was over; not looked at: those up to seq %d", last)})
			return nil
		}
		for _, m := range seen {
			found.Copies = append(found.Copies, Copy{PlaceReady, queue, m.Seq, m.Type, m.Attempt, m.SentAt, m.SentAt, 0, ""})
		}
		last = upTo
	}
	if err != nil && sqlState(err) == undefinedTable { // it was dropped just now
		return nil
	}
	return err
}
