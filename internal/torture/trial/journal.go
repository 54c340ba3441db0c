package trial

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// journal is what is to be told of a trial: while it goes on, and in its result.
type journal struct {
	to        io.Writer  // gets a line now and then; nil: nobody
	processes io.Writer  // gets what the processes log; nil: nobody
	keeping   sync.Mutex // held to write to processes

	mu       sync.Mutex
	problems []string
	skips    []string
	slowest  time.Duration // stop of a process
}

func (j *journal) problem(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	j.log("PROBLEM: %s", text)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.problems = append(j.problems, text)
}

func (j *journal) skip(what string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.skips = append(j.skips, what)
}

func (j *journal) stopTook(d time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.slowest = max(j.slowest, d)
}

func (j *journal) log(format string, args ...any) {
	if j.to != nil {
		fmt.Fprintf(j.to, "%s %s\n", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
	}
}

// keep keeps what a process logs.
func (j *journal) keep(who, text string) {
	if j.processes == nil {
		return
	}
	j.keeping.Lock()
	defer j.keeping.Unlock()
	fmt.Fprintf(j.processes, "%s %s %s\n", time.Now().Format("15:04:05.000"), who, text)
}
