package main

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"
)

// A system transports orders, used as a program would use it: through its public API, each in a database of its own that is
// empty at the start.
type system interface {
	// open creates the tables or queues and connects. Senders may use sendConns connections.
	open(ctx context.Context, at place) error

	// send sends one order in a transaction of its own, which is committed (with a broker: confirmed) when it returns. It
	// is called from several goroutines.
	send(ctx context.Context, o Order) error

	// sendMany sends a batch in one call, in the way that the system provides for that.
	sendMany(ctx context.Context, os []Order) error

	// receive begins to handle orders: each is decoded and recorded in the inbox. It uses other connections than the
	// senders, as another process would. stop shuts it down cleanly, and returns when what was handled is settled.
	receive(ctx context.Context, in *inbox) (stop func(context.Context) error, err error)

	// left counts the orders that are still waiting or in hand.
	left(ctx context.Context) (int, error)

	// close closes the connections.
	close()
}

const sendConns = 16

// place is where a system is opened.
type place struct {
	rig *rig
	url string // of an empty database
}

// subject is a system, used in one way, with what is measured about it.
type subject struct {
	key   string // in the JSON, and for -only
	title string
	rows  []row
	make  func() system

	version  string        // of the library
	tuned    string        // how it is configured, and where that comes from
	contract string        // how its promises differ from sqlq's
	poll     time.Duration // how often a receiver polls; the latency row lasts at least two of these

	// available prepares what the system needs besides the database, or returns why it cannot be measured here. nil: it
	// needs nothing.
	available func(ctx context.Context, l *rig) error
}

// errNotHere means that a system is not measured because this machine does not have it, or it was not asked for.
var errNotHere = errors.New("not available")

// takes reports whether a row is measured for the subject.
func (s subject) takes(rs ...row) bool {
	return slices.ContainsFunc(rs, func(r row) bool { return slices.Contains(s.rows, r) })
}

// subjects lists everything that is compared, sqlq first.
func subjects() []subject {
	return slices.Concat(sqlqSubjects(), riverSubjects(), gueSubjects(), watermillSubjects(), graphileSubjects(), rabbitSubjects())
}

// choose returns the subjects with these keys, in the order of the list; without keys all of them.
func choose(all []subject, keys []string) ([]subject, error) {
	if len(keys) == 0 {
		return all, nil
	}
	var known []string
	for _, s := range all {
		known = append(known, s.key)
	}
	for _, k := range keys {
		if !slices.Contains(known, k) {
			return nil, fmt.Errorf("there is no system %q; choose from %q", k, known)
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(s subject) bool { return !slices.Contains(keys, s.key) }), nil
}

// moduleVersion returns the version of a module that is linked into this program.
func moduleVersion(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown version"
	}
	for _, m := range info.Deps {
		if m.Path == path {
			return m.Version
		}
	}
	return "unknown version"
}
