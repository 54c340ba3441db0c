package sqlqtest_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sqlq/sqlq/sqlq/sqlqtest"
)

// fakeT is a test that may fail.
type fakeT struct {
	mu       sync.Mutex
	name     string
	failed   bool
	said     strings.Builder // errors
	cleanups []func()
}

// fake runs a function as a test, including its cleanups, and returns the errors it reported; "" if it passed.
func fake(t *testing.T, test func(t sqlqtest.TB)) string {
	t.Helper()
	f := &fakeT{name: t.Name() + "/fake"}
	run := func(f func()) {
		ended := make(chan struct{})
		go func() {
			defer close(ended) // even if FailNow ends the goroutine
			f()
		}()
		<-ended
	}
	run(func() { test(f) })
	for _, cleanup := range slices.Backward(f.cleanups) {
		run(cleanup)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != (f.said.Len() > 0) {
		t.Errorf("failed: %v, although it said %q", f.failed, f.said.String())
	}
	return f.said.String()
}

func (f *fakeT) Helper()             {}
func (f *fakeT) Name() string        { return f.name }
func (f *fakeT) Logf(string, ...any) {}
func (f *fakeT) FailNow()            { runtime.Goexit() }
func (f *fakeT) Cleanup(c func())    { f.cleanups = append(f.cleanups, c) }

func (f *fakeT) Errorf(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = true
	fmt.Fprintf(&f.said, format+"\n", args...)
}

// says fails the test unless the text contains all of these, in this order.
func says(t *testing.T, text string, want ...string) {
	t.Helper()
	rest := text
	for _, w := range want {
		_, after, found := strings.Cut(rest, w)
		if !found {
			t.Fatalf("it says\n%s\nwant, in this order, %q; missing %q", text, want, w)
		}
		rest = after
	}
}
