package ops

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// Actor is the person or program that makes a change, for the record of every change in the operation table. The database role is
// recorded in any case.
type Actor struct {
	OSUser string // the user name on that machine
	Host   string // the machine's name
	Reason string // the reason, in the operator's words
}

// By returns an Ops whose changes are recorded for an actor.
func (o *Ops) By(a Actor) *Ops {
	by := *o.core
	by.actor = a
	return by.ops()
}

// Kinds of operations. The first eight run in batches and can be resumed.
const (
	kindReplay     = "replay"
	kindArchive    = "archive"
	kindUnarchive  = "unarchive"
	kindDelete     = "delete"
	kindMove       = "move"
	kindPurge      = "purge"
	kindCancel     = "cancel"     // of delayed messages
	kindReschedule = "reschedule" // likewise
	kindEdit       = "edit"
	kindDrop       = "drop"
	kindImport     = "import"
	kindPause      = "pause"
	kindResume     = "resume"
	kindRelease    = "release" // of leases
	kindGrant      = "grant"
	kindRevoke     = "revoke"
	kindFix        = "fix" // what doctor found
)

// OperationKinds are the kinds of operations that there are.
var OperationKinds = []string{kindReplay, kindArchive, kindUnarchive, kindDelete, kindEdit, kindPurge, kindDrop, kindMove, kindImport, kindPause,
	kindResume, kindCancel, kindReschedule, kindRelease, kindSubscribe, kindUnsubscribe, kindGrant, kindRevoke, kindFix}

// OperationStatus says how an operation stands.
type OperationStatus string

const (
	OperationRunning     OperationStatus = statusRunning     // a process works on it
	OperationStalled     OperationStatus = "stalled"         // recorded as running, without progress for a while: its process is dead or frozen
	OperationDone        OperationStatus = statusDone        // it has reached its end
	OperationInterrupted OperationStatus = statusInterrupted // it stopped before its end; most can be resumed
	OperationCancelled   OperationStatus = statusCancelled   // it was ended with Operations.Cancel
)

// As they stand in the table.
const (
	statusRunning     = "running"
	statusDone        = "done"
	statusInterrupted = "interrupted"
	statusCancelled   = "cancelled"
)

// Operation is a change that an operator made or is making.
type Operation struct {
	ID        int64           // its number
	Kind      string          // one of OperationKinds
	Status    OperationStatus // how it stands
	Filter    json.RawMessage // which messages: a JSON object
	Queue     string          // where they went, or what was changed; "": each its own, or none
	Wanted    *int64          // how many messages it was to change; nil: not known
	Done      int64           // how many it has changed
	Role      string          // of the database
	OSUser    string          // the actor's
	Host      string          // the actor's
	Reason    string          // the actor's
	BeganAt   time.Time       // when
	UpdatedAt time.Time       // when it last did something
	EndedAt   *time.Time      // nil: it runs
	Error     string          // what ended it early
}

// MarshalJSON writes the operation as sqlq operation show -o json does.
func (op Operation) MarshalJSON() ([]byte, error) {
	return encode(struct {
		ID        int64           `json:"operation"`
		Kind      string          `json:"kind"`
		Status    OperationStatus `json:"status"`
		Filter    json.RawMessage `json:"filter"`
		Queue     *string         `json:"queue"`
		Wanted    *int64          `json:"wanted"`
		Done      int64           `json:"done"`
		Role      string          `json:"role"`
		OSUser    string          `json:"os_user"`
		Host      string          `json:"host"`
		Reason    string          `json:"reason"`
		BeganAt   time.Time       `json:"began_at"`
		UpdatedAt time.Time       `json:"updated_at"`
		EndedAt   *time.Time      `json:"ended_at"`
		Error     string          `json:"error,omitempty"`
		Resumable bool            `json:"resumable"`
	}{op.ID, op.Kind, op.Status, op.Filter, optionalText(op.Queue), op.Wanted, op.Done, op.Role, op.OSUser, op.Host, op.Reason, timeAsJSON(op.BeganAt),
		timeAsJSON(op.UpdatedAt), optionalTime(op.EndedAt), op.Error, op.Resumable()})
}

// Resumable reports whether Operations.Resume can continue it.
func (op Operation) Resumable() bool {
	return goesByBatches(op.Kind) && (op.Status == OperationInterrupted || op.Status == OperationStalled)
}

// Cancellable reports whether Operations.Cancel can end it.
func (op Operation) Cancellable() bool {
	return op.Status == OperationRunning || op.Status == OperationStalled || op.Status == OperationInterrupted
}

func goesByBatches(kind string) bool {
	switch kind {
	case kindReplay, kindArchive, kindUnarchive, kindDelete, kindMove, kindPurge, kindCancel, kindReschedule:
		return true
	}
	return false
}

// OperationFilter chooses operations: those that fit every field that is set.
type OperationFilter struct {
	Status OperationStatus // "": any
	Kind   string          // such as replay; "": any
	Queue  string          // the queue that was changed, that messages went to, or that they were of; "": any
	User   string          // the actor's OSUser, or the database role; "": any
	Since  Moment          // that began then or later
	Until  Moment          // that began before then
	Limit  int             // maximum number; default: 50
}

// List returns the operations that a filter chooses, the last one first. How long they are kept is for the
// endpoints' processes to say.
func (o Operations) List(ctx context.Context, f OperationFilter) ([]Operation, error) {
	if f.Limit <= 0 {
		f.Limit = pageSize
	}
	return o.list(ctx, f, 0)
}

// Page returns a page of the operations that a filter chooses, the last one first: the first Limit of them, default 50, behind
// opts.After. Its cursors are numbers of operations. opts.Budget does not matter.
func (o Operations) Page(ctx context.Context, f OperationFilter, opts PageOptions) (page Page[Operation], err error) {
	var before int64
	if opts.After != "" {
		if before, err = strconv.ParseInt(string(opts.After), 10, 64); err != nil {
			return page, opts.After.wrong()
		}
	}
	size := Filter{Limit: f.Limit}
	f.Limit = size.pageSize() + 1
	operations, err := o.list(ctx, f, before)
	return wholePage(operations, size, func(op Operation) Cursor { return Cursor(strconv.FormatInt(op.ID, 10)) }), err
}

// list returns the operations that a filter chooses, up to its limit, those before a number; 0: from the last on.
func (o Operations) list(ctx context.Context, f OperationFilter, before int64) ([]Operation, error) {
	switch f.Status {
	case "", OperationRunning, OperationStalled, OperationDone, OperationInterrupted, OperationCancelled:
	default:
		return nil, fmt.Errorf("status %q is unknown: it is running, stalled, done, interrupted or cancelled", f.Status)
	}
	chosen := query.OperationFilter{Status: string(f.Status), Kind: f.Kind, Queue: f.Queue, User: f.User, Since: f.Since.stored(),
		Until: f.Until.stored(), Before: before}
	atOnce := f.Limit
	if f.Queue != "" { // some that are read may be left out
		atOnce = max(atOnce, 200)
	}
	operations := []Operation{}
	for {
		list, err := o.store.ListOperations(ctx, o.pool, chosen, atOnce)
		if err != nil {
			return nil, fmt.Errorf("list operations: %w", err)
		}
		for _, op := range list {
			if op := operation(op); (f.Queue == "" || op.isOf(f.Queue)) && len(operations) < f.Limit {
				operations = append(operations, op)
			}
		}
		if len(list) < atOnce || len(operations) == f.Limit {
			return operations, nil
		}
		chosen.Before = list[len(list)-1].ID
	}
}

// isOf reports whether an operation is about a queue: the one that it changed or sent messages to, or one that it was told.
func (op Operation) isOf(queue string) bool {
	if op.Queue == queue {
		return true
	}
	var told struct { // encoding/json finds a member whatever its case
		Queue  json.RawMessage
		Queues json.RawMessage
	}
	if json.Unmarshal(op.Filter, &told) != nil {
		return false
	}
	var one string
	var several []string
	return json.Unmarshal(told.Queue, &one) == nil && one == queue || json.Unmarshal(told.Queues, &several) == nil && slices.Contains(several, queue)
}

// Show returns one operation; a *NoOperationError when there is none of that number.
func (o Operations) Show(ctx context.Context, id int64) (Operation, error) {
	op, err := o.readOperation(ctx, id)
	if err != nil {
		return Operation{}, err
	}
	return operation(op), nil
}

// Cancel ends an operation: a running one stops before its next batch, an interrupted one can no longer be resumed. What it has done
// stays done.
func (o Operations) Cancel(ctx context.Context, id int64) (Operation, error) {
	op, err := o.readOperation(ctx, id)
	if err != nil {
		return Operation{}, err
	}
	by := fmt.Sprintf(" (%s@%s)", o.actor.OSUser, o.actor.Host)
	if o.actor.Reason != "" {
		by += ": " + o.actor.Reason
	}
	cancelled, err := o.store.CancelOperation(ctx, o.pool, id, by)
	if err != nil {
		return operation(op), fmt.Errorf("cancel operation %d: %w", id, err)
	}
	if op, err = o.readOperation(ctx, id); err != nil {
		return Operation{}, err
	}
	if !cancelled {
		return operation(op), fmt.Errorf("operation %d is %s already", id, op.Status)
	}
	return operation(op), nil
}

// PreviewCancel returns an operation that Operations.Cancel would end, and changes nothing; its error is that of Operations.Cancel.
func (o Operations) PreviewCancel(ctx context.Context, id int64) (Operation, error) {
	op, err := o.readOperation(ctx, id)
	if err != nil {
		return Operation{}, err
	}
	shown := operation(op)
	if !shown.Cancellable() {
		return shown, fmt.Errorf("operation %d is %s already", id, op.Status)
	}
	return shown, nil
}

func (o Operations) readOperation(ctx context.Context, id int64) (query.Operation, error) {
	op, err := o.store.ReadOperation(ctx, o.pool, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return op, &NoOperationError{ID: id}
	}
	if err != nil {
		return op, fmt.Errorf("read operation %d: %w", id, err)
	}
	return op, nil
}

func operation(op query.Operation) Operation {
	shown := Operation{ID: op.ID, Kind: op.Kind, Status: OperationStatus(op.Status), Filter: op.Filter, Wanted: op.Wanted, Done: op.Done, Role: op.Role,
		OSUser: op.OSUser, Host: op.Host, Reason: op.Reason, BeganAt: op.BeganAt, UpdatedAt: op.UpdatedAt, EndedAt: op.EndedAt}
	if op.Stalled && goesByBatches(op.Kind) { // others may take long over a single step
		shown.Status = OperationStalled
	}
	if op.Queue != nil {
		shown.Queue = *op.Queue
	}
	if op.Error != nil {
		shown.Error = *op.Error
	}
	return shown
}

// written is what an operation that goes by batches was told, as it stands in the operation table, for people and to go on
// with: its times are absolute.
type written struct {
	Names    []string          `json:"names,omitempty"`
	Queue    string            `json:"queue,omitempty"`
	Type     string            `json:"type,omitempty"`
	Group    string            `json:"group,omitempty"`
	Error    string            `json:"error,omitempty"`
	Since    *time.Time        `json:"since,omitempty"`
	Until    *time.Time        `json:"until,omitempty"`
	Headers  map[string]string `json:"headers,omitempty"`
	Body     string            `json:"body,omitempty"`
	Attempts *writtenRange     `json:"attempts,omitempty"`
	Status   Status            `json:"status,omitempty"`
	Order    Order             `json:"order,omitempty"`
	Limit    int               `json:"limit,omitempty"`
	All      bool              `json:"all,omitempty"`
	Rate     float64           `json:"rate,omitempty"`    // messages a second
	Delayed  bool              `json:"delayed,omitempty"` // of a purge: the delayed messages, too
	Due      *time.Time        `json:"due,omitempty"`     // of a reschedule: to that time
	By       string            `json:"by,omitempty"`      // or by so much
	First    *writtenPlace     `json:"first,omitempty"`   // of delayed messages: the first and the last that it is about, where there is a limit
	Last     *writtenPlace     `json:"last,omitempty"`
}

// writtenPlace is a place in the order of the delayed messages.
type writtenPlace struct {
	At     time.Time `json:"at"`
	Number int64     `json:"number"`
}

type writtenRange struct {
	Min *int `json:"min,omitempty"`
	Max *int `json:"max,omitempty"`
}

// write returns a filter whose times are absolute, and a rate, for the operation table.
func write(f Filter, rate float64) written {
	w := written{Names: f.Names, Queue: f.Queue, Type: f.Type, Group: f.Group, Error: f.Error, Headers: f.Headers, Body: f.Body,
		Status: f.Status, Order: f.Order, Limit: f.Limit, All: f.All, Rate: rate}
	if f.Attempts != (Range{}) {
		w.Attempts = &writtenRange{f.Attempts.Min, f.Attempts.Max}
	}
	if at := f.Since.At; !at.IsZero() {
		w.Since = &at
	}
	if at := f.Until.At; !at.IsZero() {
		w.Until = &at
	}
	return w
}

// read returns what write has written, and its filter. A condition that it does not know is an error: without it other
// messages would be chosen.
func read(text json.RawMessage) (f Filter, w written, err error) {
	in := json.NewDecoder(bytes.NewReader(text))
	in.DisallowUnknownFields()
	if err := in.Decode(&w); err != nil {
		return f, w, fmt.Errorf("its filter cannot be understood: %w", err)
	}
	f = Filter{Names: w.Names, Queue: w.Queue, Type: w.Type, Group: w.Group, Error: w.Error, Headers: w.Headers, Body: w.Body,
		Status: w.Status, Order: w.Order, Limit: w.Limit, All: w.All}
	if w.Attempts != nil {
		f.Attempts = Range{w.Attempts.Min, w.Attempts.Max}
	}
	if w.Since != nil {
		f.Since.At = *w.Since
	}
	if w.Until != nil {
		f.Until.At = *w.Until
	}
	return f, w, nil
}

// begin writes down that an operation begins, and returns its number. filter is what it was told, for people and for going
// on later.
func (o *core) begin(ctx context.Context, kind string, filter any, op query.Operation) (id int64, err error) {
	return o.beginIn(ctx, o.pool, kind, filter, op, query.Place{})
}

// beginIn is begin as part of a transaction, or of an operation that leaves alone what lies up to a place. The place is recorded,
// because a process that resumes the operation would otherwise choose other messages.
func (o *core) beginIn(ctx context.Context, db store.DBTX, kind string, filter any, op query.Operation, after query.Place) (id int64, err error) {
	if op.Filter, err = json.Marshal(filter); err != nil {
		return 0, fmt.Errorf("write the filter of the operation down: %w", err)
	}
	op.Kind, op.OSUser, op.Host, op.Reason = kind, o.actor.OSUser, o.actor.Host, o.actor.Reason
	if id, err = o.store.BeginOperation(ctx, db, op, after); err != nil {
		return 0, fmt.Errorf("write the operation down: %w", err)
	}
	return id, nil
}

// end writes down how an operation ended, also when ctx has: then it was interrupted, like one that failed.
func (o *core) end(ctx context.Context, id int64, failure error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	status, text := statusDone, ""
	if failure != nil {
		status = statusInterrupted
		if !errors.Is(failure, context.Canceled) { // else that says it all
			text = failure.Error()
		}
	}
	if err := o.store.EndOperation(ctx, o.pool, id, status, text); err != nil {
		return fmt.Errorf("write down how operation %d ended: %w", id, err)
	}
	return nil
}

// record writes an operation on a queue down that is done with the transaction that does it. filter is as in begin.
func (o *core) record(ctx context.Context, tx pgx.Tx, kind, queue string, filter any, changed int64) error {
	id, err := o.beginIn(ctx, tx, kind, filter, query.Operation{Queue: &queue}, query.Place{})
	if err != nil {
		return err
	}
	return o.recorded(ctx, tx, id, changed, query.Place{})
}

// recorded writes down that an operation is done with the transaction that does it.
func (o *core) recorded(ctx context.Context, tx pgx.Tx, id, changed int64, after query.Place) error {
	if _, err := o.store.AdvanceOperation(ctx, tx, id, changed, after); err != nil {
		return fmt.Errorf("write down what operation %d did: %w", id, err)
	}
	if err := o.store.EndOperation(ctx, tx, id, statusDone, ""); err != nil {
		return fmt.Errorf("write down how operation %d ended: %w", id, err)
	}
	return nil
}
