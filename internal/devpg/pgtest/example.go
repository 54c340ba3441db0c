package pgtest

import (
	"fmt"
	"testing"
)

// Example is Database for an Example function, which has no testing.TB: end drops the database. It panics where a test
// would fail.
func Example() (url string, end func()) {
	t := &example{}
	return Database(t), func() {
		for _, undo := range t.undo {
			undo()
		}
	}
}

// example implements as much of testing.TB as Database needs.
type example struct {
	testing.TB // nil: its other methods are not called
	undo       []func()
}

func (e *example) Helper()             {}
func (e *example) Name() string        { return "Example" }
func (e *example) Cleanup(undo func()) { e.undo = append(e.undo, undo) }
func (e *example) Fatal(args ...any)   { panic(fmt.Sprint(args...)) }
func (e *example) Error(args ...any)   { panic(fmt.Sprint(args...)) }
