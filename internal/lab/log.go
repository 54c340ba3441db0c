package lab

import (
	"fmt"
	"strings"
	"sync"
)

// Log keeps what a process logs: the first lines, which often hold the cause, and the last.
type Log struct {
	mu      sync.Mutex
	first   []string
	last    []string // the last lines, after the first ones
	skipped int      // how many lines between the two
}

const (
	firstKept = 200
	lastKept  = 100
	lineKept  = 4 << 10 // bytes of a line
)

func (l *Log) add(line string) {
	line = line[:min(len(line), lineKept)]
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.first) < firstKept {
		l.first = append(l.first, line)
		return
	}
	if l.last = append(l.last, line); len(l.last) > lastKept {
		l.last = l.last[1:]
		l.skipped++
	}
}

// First returns the first line; "" if there is none.
func (l *Log) First() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.first) == 0 {
		return ""
	}
	return l.first[0]
}

// String returns what was kept.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.first[:len(l.first):len(l.first)]
	if l.skipped > 0 {
		lines = append(lines, fmt.Sprintf("… %d more lines …", l.skipped))
	}
	return strings.Join(append(lines, l.last...), "\n")
}
