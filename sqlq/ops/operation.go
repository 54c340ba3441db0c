package ops

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// Actor is who operates, for the record that every change leaves in the operation table. The database role is known there
// anyway.
type Actor struct {
	OSUser string
	Host   string
	Reason string // why, in the operator's words
}

// By returns an Ops that does the same in the name of an actor.
func (o *Ops) By(a Actor) *Ops {
	by := *o
	by.actor = a
	return &by
}

// Kinds of operations.
const (
	kindReplay     = "replay"
	kindArchive    = "archive"
	kindUnarchive  = "unarchive"
	kindDelete     = "delete"
	kindEdit       = "edit"
	kindPurge      = "purge"
	kindDrop       = "drop"
	kindMove       = "move"
	kindImport     = "import"
	kindPause      = "pause"
	kindResume     = "resume"
	kindCancel     = "cancel"     // of delayed messages
	kindReschedule = "reschedule" // likewise
	kindRelease    = "release"    // of leases
	kindGrant      = "grant"
	kindRevoke     = "revoke"
	kindMend       = "mend" // what doctor found
)

// begin writes down that an operation begins, and returns its number. filter is what it was told, for people and for going
// on later.
func (o *Ops) begin(ctx context.Context, kind string, filter any, op store.Operation) (id int64, err error) {
	if op.Filter, err = json.Marshal(filter); err != nil {
		return 0, fmt.Errorf("write the filter of the operation down: %w", err)
	}
	op.Kind, op.OSUser, op.Host, op.Reason = kind, o.actor.OSUser, o.actor.Host, o.actor.Reason
	if id, err = o.store.BeginOperation(ctx, o.pool, op); err != nil {
		return 0, fmt.Errorf("write the operation down: %w", err)
	}
	return id, nil
}

// end writes down how an operation ended, also when ctx has: then it was interrupted, like one that failed.
func (o *Ops) end(ctx context.Context, id int64, failure error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	status, text := "done", ""
	if failure != nil {
		status, text = "interrupted", failure.Error()
	}
	if err := o.store.EndOperation(ctx, o.pool, id, status, text); err != nil {
		return fmt.Errorf("write down how operation %d ended: %w", id, err)
	}
	return nil
}
