package store

import (
	"strconv"
	"testing"
)

// Queues come and go: statements for them are not kept for ever, and those that are in use are made again.
func TestInsertsKeptAreBounded(t *testing.T) {
	t.Parallel()
	s := New("sqlq")
	for n := range 3 * maxInserts {
		if got := s.Sending.inserts("reply." + strconv.Itoa(n)); got.one == "" || got.many == "" {
			t.Fatal("no statement")
		}
	}
	kept := 0
	s.Sending.made.Range(func(any, any) bool { kept++; return true })
	if kept > maxInserts {
		t.Errorf("statements for %d queues are kept, want at most %d", kept, maxInserts)
	}
}
