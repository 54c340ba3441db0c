package main

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"
)

// A system carries orders, as a program would use it: through its public API, each in a database of its own that is
// empty at the start.
type system interface {
	// open makes the tables or queues and connects. Senders may use sendConns connections.
	open(ctx context.Context, at place) error

	// send sends one order in a transaction of its own, which is committed (with a broker: confirmed) when it returns. It
	// is called from several goroutines.
	send(ctx context.Context, o Order) error

	// sendMany sends a batch in one call of the system's means for that.
	sendMany(ctx context.Context, os []Order) error

	// receive begins to handle orders: each is decoded and taken down in the inbox. It uses other connections than the
	// senders, as another process would. stop ends it gracefully, and returns when what was handled is settled.
	receive(ctx context.Context, in *inbox) (stop func(context.Context) error, err error)

	// left counts the orders that still wait or are in hand.
	left(ctx context.Context) (int, error)

	// close lets go of the connections.
	close()
}

const sendConns = 16

// place is where a system may be opened.
type place struct {
	rig *rig
	url string // of an empty database
}

// subject is a system, in one way of using it, with what is measured of it.
type subject struct {
	key   string // in the JSON, and for -only
	title string
	rows  []row
	make  func() system

	version  string        // of the library
	tuned    string        // how it was set, and where that comes from
	contract string        // what it promises otherwise than sqlq does
	poll     time.Duration // how often a receiver looks by itself; the latency row lasts at least two of these

	// available makes ready what the system needs beside the database, or says why it cannot be measured here. nil: it
	// needs nothing.
	available func(ctx context.Context, l *rig) error
}

// errNotHere is the reason why a system that this machine does not have, or was not asked for, is not measured.
var errNotHere = errors.New("not here")

// takes says whether a row is measured of the subject.
func (s subject) takes(rs ...row) bool {
	return slices.ContainsFunc(rs, func(r row) bool { return slices.Contains(s.rows, r) })
}

// subjects lists everything that is compared, sqlq first.
func subjects() []subject {
	return slices.Concat(sqlqSubjects(), riverSubjects(), gueSubjects(), watermillSubjects(), graphileSubjects(), rabbitSubjects())
}

// choose picks subjects by their keys, in the order of the list; none: all.
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
			return nil, fmt.Errorf("no system %q: there are %q", k, known)
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
