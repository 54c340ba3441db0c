package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// kindVariable marks a process started by Start, and contains its kind.
const kindVariable = "SQLQ_LAB_CHILD"

// Child is the other end of a Process: the process itself, which is told things and reports things.
type Child struct {
	in    *bufio.Reader
	leash time.Duration // how long the process may go on after its input has ended; 0: no limit

	mu  sync.Mutex
	out io.Writer
}

// NewChild returns a child that is told things on in and reports things on out.
func NewChild(in io.Reader, out io.Writer) *Child {
	return &Child{in: bufio.NewReader(in), out: out}
}

// Be runs f and exits if this process is of that kind. Otherwise it does nothing. The main of a program that starts itself
// as a child calls it first.
func Be(kind string, f func(*Child) error) {
	if os.Getenv(kindVariable) != kind {
		return
	}
	c := NewChild(os.Stdin, os.Stdout)
	c.leash = time.Minute // far longer than an endpoint needs to drain
	if err := f(c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Spec reads the first line of the input, which says what to do.
func (c *Child) Spec(into any) error {
	line, err := c.in.ReadBytes('\n')
	if err != nil {
		return errors.New("the input ended before it said what to do")
	}
	if err := json.Unmarshal(line, into); err != nil {
		return fmt.Errorf("read what to do: %w", err)
	}
	return nil
}

// Word waits for the next line of the input; false: the input has ended.
func (c *Child) Word() (word string, more bool) {
	line, err := c.in.ReadString('\n')
	return strings.TrimSuffix(line, "\n"), err == nil
}

// Listen calls heard, unless it is nil, with each further line. The context that it returns ends with the input, which ends
// when the parent dismisses the process or dies.
func (c *Child) Listen(ctx context.Context, heard func(word string)) (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancel(ctx)
	go func() {
		for {
			word, more := c.Word()
			if !more {
				break
			}
			if heard != nil {
				heard(word)
			}
		}
		end()
		if c.leash > 0 {
			time.Sleep(c.leash)
			os.Exit(4)
		}
	}()
	return ctx, end
}

// Tell reports something to the parent, in a single write: a pipe takes all of a short line or nothing, even if the process is
// killed. If the parent has died the line is lost, and the input ends too.
func (c *Child) Tell(v any) {
	line, err := json.Marshal(v)
	if err != nil {
		panic(err) // numbers, strings, and structs of them
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = c.out.Write(append(line, '\n'))
}
