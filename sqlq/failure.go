package sqlq

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// Limits of what the error table keeps of an error, in bytes and links.
const (
	maxErrorText  = 8 << 10 // of the error, and of each link of its chain
	maxErrorType  = 500
	maxStack      = 32 << 10
	maxChainLinks = 32
)

// describe returns what the error table keeps of the failure of a message.
func describe(messageType string, err error) store.Failure {
	chain := unwrapAll(err)
	innermost := chain[len(chain)-1]
	f := store.Failure{
		ErrorType:   typeOf(innermost),
		Message:     clip(err.Error(), maxErrorText),
		Fingerprint: fingerprint(messageType, typeOf(innermost), err.Error()),
	}
	for _, link := range chain[:min(len(chain), maxChainLinks)] {
		f.Chain = append(f.Chain, typeOf(link)+": "+clip(link.Error(), maxErrorText))
	}
	var p *panicked
	if errors.As(err, &p) {
		stack := clip(p.stack, maxStack)
		f.Stack = &stack
		if len(chain) == 1 {
			f.ErrorType = "panic"
		}
	}
	return f
}

// unwrapAll lists an error and those that it wraps, outermost first, each branch of joined errors to its end before the
// next. The last is the innermost error of the last branch: with "%w: %w" of a sentinel and a cause, the cause.
func unwrapAll(err error) []error {
	chain := []error{err}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			chain = append(chain, unwrapAll(inner)...)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			if inner != nil {
				chain = append(chain, unwrapAll(inner)...)
			}
		}
	}
	return chain
}

// typeOf names the Go type of an error. Those of generic types can be long.
func typeOf(err error) string {
	return clip(strings.TrimPrefix(fmt.Sprintf("%T", err), "*"), maxErrorType)
}

// clip makes text fit to be stored and logged: valid, and at most limit bytes. Of a long one it looks at the beginning only.
func clip(s string, limit int) string {
	s = cleanText(s[:min(len(s), 4*limit)])
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}

// loggedError is an error as it is logged: with as much of its text as the error table keeps. It stays itself for whoever
// looks at it with errors.Is.
func loggedError(err error) error {
	if err == nil || len(err.Error()) <= maxErrorText {
		return err
	}
	return clippedError{err}
}

type clippedError struct{ error }

// Error implements error.
func (e clippedError) Error() string { return clip(e.error.Error(), maxErrorText) }

func (e clippedError) Unwrap() error { return e.error }

// loggedText is a text of a message's as it is logged: nobody can say how long it is.
func loggedText(s string) string { return clip(s, maxErrorType) }
