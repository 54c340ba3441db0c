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
// input, the first of which is its spec, and says things line by line on its standard output, each a T in JSON. Child is the
// other end.
//
// Closing its input is how it is asked to shut down, and also what happens to it when this program dies.
type Process[T any] struct {
	command Command[T]
	cmd     *exec.Cmd
	input   io.WriteCloser
	ended   chan struct{} // closed when it has said its last and exited

	log Log

	mu        sync.Mutex
	dismissed bool
	exit, err error // set once it has ended
}

// Command says how a process is started, and who hears it.
type Command[T any] struct {
	Cmd  *exec.Cmd // of the program itself, whose main calls Be; its streams are the process's
	Kind string    // what Be is to recognise; "": the command's arguments say it
	Spec any       // what to do; it is the first line of the input, because command lines and environments are public

	Said   func(T)           // each thing it says, one after the other; required
	Logged func(line string) // each line of its standard error, beside what Log keeps; nil: nobody
	Ended  func(exit error)  // that it has ended, before Ended is closed; nil: nobody
}

// NewProcess is a process that Start starts.
func NewProcess[T any](c Command[T]) *Process[T] {
	return &Process[T]{command: c, cmd: c.Cmd, ended: make(chan struct{})}
}

// Start starts the process. What it says is heard from then on, until it ends; what it said before it was killed, too.
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
	// A process that ends at once does not read its spec; its end says more than the broken pipe.
	_ = json.NewEncoder(p.input).Encode(c.Spec)
	return nil
}

// eachLine calls f with each line, without its end, however long it is.
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
		failed = errors.New("it ended unasked")
	}
	if failed != nil {
		p.err = fmt.Errorf("process %d: %w\n%s", p.PID(), failed, p.log.String())
	}
	close(p.ended)
}

// PID is the process's number.
func (p *Process[T]) PID() int { return p.cmd.Process.Pid }

// Log is what the process has logged so far.
func (p *Process[T]) Log() *Log { return &p.log }

// Ended is closed when the process has ended, and all that it said has been heard.
func (p *Process[T]) Ended() <-chan struct{} { return p.ended }

// Exit is how the process ended, as exec.Cmd.Wait says it; nil while it runs.
func (p *Process[T]) Exit() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exit
}

// Err is why the process ended, with what it logged; nil while it runs, and if it was dismissed and shut down cleanly.
func (p *Process[T]) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Tell writes a line to the process. One that has ended does not hear it, and its Err says why.
func (p *Process[T]) Tell(word string) { _, _ = io.WriteString(p.input, word+"\n") }

// Dismiss asks the process to shut down; Ended and Err tell the rest.
func (p *Process[T]) Dismiss() {
	p.mu.Lock()
	p.dismissed = true
	p.mu.Unlock()
	_ = p.input.Close() // a process that has ended says so itself
}

// Kill ends the process whatever it is doing, frozen or not. It does not wait for Ended.
func (p *Process[T]) Kill() error { return p.cmd.Process.Kill() }

// Freeze stops the process where it is, where the system can.
func (p *Process[T]) Freeze() error { return freeze(p.cmd.Process) }

// Thaw has a frozen process go on.
func (p *Process[T]) Thaw() error { return thaw(p.cmd.Process) }

// Terminate asks the process to shut down by a signal, as whoever runs services does.
func (p *Process[T]) Terminate() error { return terminate(p.cmd.Process) }

// Dump has the process log the stacks of all its goroutines, which ends it.
func (p *Process[T]) Dump() error { return dump(p.cmd.Process) }
