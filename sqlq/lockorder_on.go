//go:build lockorder

package sqlq

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"sync"
)

type ranked[R interface{ rank() int }] struct{ mutex sync.Mutex }

// held are the ranks of the locks that each goroutine has.
var (
	heldMu sync.Mutex
	held   = map[string][]int{}
)

func (m *ranked[R]) Lock() {
	var r R
	g := goroutine()
	heldMu.Lock()
	for _, has := range held[g] {
		if has >= r.rank() {
			heldMu.Unlock()
			panic(fmt.Sprintf("the order of locks: %T is taken while a lock of rank %d is held", r, has))
		}
	}
	held[g] = append(held[g], r.rank())
	heldMu.Unlock()
	m.mutex.Lock()
}

func (m *ranked[R]) Unlock() {
	m.mutex.Unlock()
	var r R
	g := goroutine()
	heldMu.Lock()
	defer heldMu.Unlock()
	if at := slices.Index(held[g], r.rank()); at >= 0 {
		held[g] = slices.Delete(held[g], at, at+1)
	}
	if len(held[g]) == 0 {
		delete(held, g)
	}
}

// goroutine names the one that calls it, as the first words of its stack do.
func goroutine() string {
	var stack [64]byte
	words := bytes.Fields(stack[:runtime.Stack(stack[:], false)])
	return string(words[1])
}
