package ops

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Past is something that operators did to a message.
type Past struct {
	At        time.Time // when
	What      string    // the kind of operation: replay, edit, archive, …
	Operation int64     // its number; 0: none
	Role      string    // who did it: the database role, the user of the system and the host, as the program said
	OSUser    string    // who, as their machine knows them
	Host      string    // of whom
	Reason    string    // which they gave

	// The message before it.
	Queue    string
	Attempts int             // 0: not known
	FailedAt *time.Time      // nil: not known
	FailedOn string          // the host on which it did
	Error    string          // with which it had failed
	Headers  json.RawMessage // of an edit; nil: none
	Body     []byte          // of an edit; nil: it was not changed
}

// MarshalJSON writes it as sqlq error show -o json and sqlq find -o json do: of an edit with what it replaced.
func (p Past) MarshalJSON() ([]byte, error) {
	type before struct {
		Headers   json.RawMessage `json:"headers"`
		*bodyJSON                 // nil: the body stayed
	}
	past := struct {
		At        time.Time  `json:"at"`
		What      string     `json:"what"`
		Operation int64      `json:"operation"`
		Role      string     `json:"role"`
		OSUser    string     `json:"os_user"`
		Host      string     `json:"host"`
		Reason    string     `json:"reason,omitempty"`
		Queue     string     `json:"queue"`
		Attempts  int        `json:"attempts,omitempty"`
		FailedAt  *time.Time `json:"failed_at,omitempty"`
		FailedOn  string     `json:"failed_on,omitempty"`
		Error     string     `json:"error,omitempty"`
		Before    *before    `json:"before,omitempty"`
	}{timeAsJSON(p.At), p.What, p.Operation, p.Role, p.OSUser, p.Host, p.Reason, p.Queue, p.Attempts, optionalTime(p.FailedAt), p.FailedOn, p.Error, nil}
	if p.What == kindEdit {
		past.Before = &before{Headers: headersAsJSON(p.Headers)}
		if p.Body != nil {
			body := bodyAsJSON(p.Body)
			past.Before.bodyJSON = &body
		}
	}
	return encode(past)
}

// historyLimit is how much History returns at most.
const historyLimit = 1000

// History returns what operators did to the message of that id, the first of it first, and how it had failed before; the
// last thousand things, where there are more. Of an event whose copies failed in several queues, what was done to any of them is there.
func (o *Ops) History(ctx context.Context, id string) ([]Past, error) {
	id, err := parseID(id)
	if err != nil {
		return nil, err
	}
	stored, err := o.store.History(ctx, o.pool, id, historyLimit)
	if err != nil {
		return nil, fmt.Errorf("read the history of message %s: %w", id, err)
	}
	past := make([]Past, len(stored))
	for i, p := range stored {
		past[i] = Past{At: p.At, What: p.What, Operation: or(p.Operation), Role: or(p.Role), OSUser: or(p.OSUser), Host: or(p.OpHost),
			Reason: or(p.Reason), Queue: p.Queue, Attempts: or(p.Attempts), FailedAt: p.FailedAt, FailedOn: or(p.Host), Error: or(p.Error),
			Headers: p.Headers, Body: p.Body}
	}
	return past, nil
}

// or returns what a pointer points at, the zero value for nil.
func or[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
