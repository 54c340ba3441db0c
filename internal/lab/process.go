package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
)

// Process is a process of an experiment, seen from the program that started it. It is told things line by line on its standard
// input, the first of which is its spec, and reports things line by line on its standard output, each a T in JSON. Child is the
// other end.
//
// Closing its input asks it to shut down; that also happens when this program dies.
type Process[T any] struct {
	command Command[T]
	cmd     *exec.Cmd
	input   io.WriteCloser
	ended   chan struct{} // closed when it has exited and all its output is read

	log Log

	mu        sync.Mutex
	dismissed bool
	exit, err error // set when it has ended
}

// Command says how to start a process, and what to do with its output.
type Command[T any] struct {
	Cmd  *exec.Cmd // runs this program again, whose main calls Be; Start sets its streams
	Kind string    // which call of Be is to run; "": the command's arguments decide
	Spec any       // what to do; sent as the first line of the input, because command lines and environments are public

	Said   func(T)           // called with each thing it reports, one after another; required
	Logged func(line string) // called with each line of its standard error, in addition to Log; may be nil
	Ended  func(exit error)  // called when it has ended, before the channel Ended is closed; may be nil
}

// NewProcess returns a process for Start to start.
func NewProcess[T any](c Command[T]) *Process[T] {
	return &Process[T]{command: c, cmd: c.Cmd, ended: make(chan struct{})}
}

// Start starts the process. Everything it reports is passed on until it ends, including what it reported before it was killed.
func (p *Process[T]) Start() error {
	c := p.command
	if c.Kind != "" {
		p.cmd.Env = append(p.cmd.Environ(), kindVariable+"="+c.Kind)
	}
	var err error
	if p.input, err = p.cmd.StdinPipe(); err != nil {
		return err
	}
	said, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	logged, err := p.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start a process: %w", err)
	}
	keep := func(line string) {
		p.log.add(line)
		if c.Logged != nil {
			c.Logged(line)
		}
	}
	var stray error
	var readers sync.WaitGroup
	readers.Go(func() {
		eachLine(said, func(line []byte) {
			var t T
			if err := json.Unmarshal(line, &t); err != nil {
				keep(string(line))
				stray = fmt.Errorf("it said %q", line)
				return
			}
			c.Said(t)
		})
	})
	readers.Go(func() { eachLine(logged, func(line []byte) { keep(string(line)) }) })
	go func() {
		readers.Wait() // before Wait, which closes the pipes
		exit := p.cmd.Wait()
		if c.Ended != nil {
			c.Ended(exit)
		}
		p.end(exit, stray)
	}()
	// A process that ends at once does not read its spec; the way it ended says more than the broken pipe.
	_ = json.NewEncoder(p.input).Encode(c.Spec)
	return nil
}

// eachLine calls f with each line, without its line end, however long it is.
func eachLine(from io.Reader, f func(line []byte)) {
	for in := bufio.NewReader(from); ; {
		line, err := in.ReadBytes('\n')
		if err == nil {
			line = line[:len(line)-1]
		}
		if len(line) > 0 {
			f(line)
		}
		if err != nil {
			return
		}
	}
}

func (p *Process[T]) end(exit, stray error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.exit = exit
	failed := errors.Join(stray, exit)
	if failed == nil && !p.dismissed {
		failed = errors.New("it ended without being asked to")
	}
	if failed != nil {
		p.err = fmt.Errorf("process %d: %w\n%s", p.PID(), failed, p.log.String())
	}
	close(p.ended)
}

// PID returns the process id.
func (p *Process[T]) PID() int { return p.cmd.Process.Pid }

// Log returns what the process has logged so far.
func (p *Process[T]) Log() *Log { return &p.log }

// Ended returns a channel that is closed when the process has ended and all its output is read.
func (p *Process[T]) Ended() <-chan struct{} { return p.ended }

// Exit returns how the process ended, as exec.Cmd.Wait reports it; nil while it runs.
func (p *Process[T]) Exit() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exit
}

// Err returns why the process ended, with what it logged; nil while it runs, and if it was dismissed and shut down cleanly.
func (p *Process[T]) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Tell writes a line to the process. If the process has ended the line is lost, and Err says why.
func (p *Process[T]) Tell(word string) { _, _ = io.WriteString(p.input, word+"\n") }

// Dismiss asks the process to shut down; Ended and Err report how that went.
func (p *Process[T]) Dismiss() {
	p.mu.Lock()
	p.dismissed = true
	p.mu.Unlock()
	_ = p.input.Close() // an error means that the process has ended, which Err reports
}

// Kill kills the process, even if it is frozen. It does not wait for Ended.
func (p *Process[T]) Kill() error { return p.cmd.Process.Kill() }

// Freeze stops the process where it is, if the system can do that.
func (p *Process[T]) Freeze() error { return freeze(p.cmd.Process) }

// Thaw resumes a frozen process.
func (p *Process[T]) Thaw() error { return thaw(p.cmd.Process) }

// Terminate asks the process to shut down with a signal, as a service manager does.
func (p *Process[T]) Terminate() error { return terminate(p.cmd.Process) }

// Dump makes the process log the stacks of all its goroutines, which ends it.
func (p *Process[T]) Dump() error { return dump(p.cmd.Process) }
