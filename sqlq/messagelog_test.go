package sqlq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A type of which thousands fail each second is named ten times in ten seconds, and then the log says how many others there were,
// also when no more fail. Other types are named all the same.
func TestFailuresAreNamedWithMeasure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var said lineCounter
		l := newMessageLog(slog.New(&said))
		fail := func(messageType string, n int) {
			for i := range n {
				l.say(t.Context(), slog.LevelError, "sqlq: message failed", "sales", messageType, fmt.Errorf("fault %d", i), "message", i)
			}
		}
		for range 10 {
			fail("a", 1000)
			time.Sleep(100 * time.Millisecond)
		}
		fail("b", 1)
		said.want(t, 11, 0)
		time.Sleep(lineInterval)
		synctest.Wait()
		said.want(t, 11, 1)
		if !strings.Contains(said.last, "messages=9990") || !strings.Contains(said.last, "last=fault 999") || !strings.Contains(said.last, "type=a") {
			t.Errorf("the summary is %q", said.last)
		}
		fail("a", 11)
		said.want(t, 21, 1)
		l.flush() // as at the end of Run
		l.flush()
		said.want(t, 21, 2)
		time.Sleep(2 * lineInterval)
		synctest.Wait()
		said.want(t, 21, 2)
		// Slow failures are all named.
		for range 100 {
			fail("c", 1)
			time.Sleep(time.Second)
		}
		said.want(t, 121, 2)
		// However many types there are, neither memory nor the log grows with them.
		synctest.Wait()
		said.lines, said.sums = 0, 0
		for i := range 20 * maxLineKinds {
			fail(fmt.Sprint("many", i), 1)
		}
		time.Sleep(lineInterval)
		synctest.Wait()
		if said.lines > maxLineKinds+namedLines || said.sums != 1 || len(l.byKind) > maxLineKinds+1 {
			t.Errorf("%d lines, %d summaries, %d kinds are kept", said.lines, said.sums, len(l.byKind))
		}
	})
}

// What is logged of a message has the context of its handler.
func TestFailuresAreLoggedWithTheirContext(t *testing.T) {
	t.Parallel()
	var said lineCounter
	l := newMessageLog(slog.New(&said))
	l.say(context.WithValue(t.Context(), traceKey{}, "trace-7"), slog.LevelError, "sqlq: message failed", "sales", "a", errors.New("x"))
	if said.trace != "trace-7" {
		t.Errorf("the slog.Handler found %q", said.trace)
	}
}

type traceKey struct{}

// lineCounter is a slog.Handler that counts what is named, and what is summed up.
type lineCounter struct {
	mu          sync.Mutex // messages are named, and timers sum them up, at the same time
	lines, sums int
	last, trace string
}

// Enabled implements slog.Handler.
func (*lineCounter) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (c *lineCounter) Handle(ctx context.Context, r slog.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trace, _ = ctx.Value(traceKey{}).(string)
	c.last = r.Message
	r.Attrs(func(a slog.Attr) bool { c.last += " " + a.String(); return true })
	if strings.Contains(r.Message, "others") {
		c.sums++
	} else {
		c.lines++
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (c *lineCounter) WithAttrs([]slog.Attr) slog.Handler { return c }

// WithGroup implements slog.Handler.
func (c *lineCounter) WithGroup(string) slog.Handler { return c }

func (c *lineCounter) want(t *testing.T, lines, sums int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lines != lines || c.sums != sums {
		t.Errorf("%d lines and %d summaries, want %d and %d", c.lines, c.sums, lines, sums)
	}
}
