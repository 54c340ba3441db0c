package cli

import (
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/hinshun/vt10x"
)

// screen is a program on a pseudo-terminal, and what a terminal would show of it.
type screen struct {
	t        *testing.T
	pty      *os.File
	terminal vt10x.Terminal
	program  *exec.Cmd
	ended    chan error

	mu      sync.Mutex
	changed chan struct{} // closed when something was drawn
}

// screenPatience is how long a test waits for what the screen should show.
const screenPatience = 30 * time.Second

func newScreen(t *testing.T, columns, rows int, url string, args ...string) *screen {
	t.Helper()
	s := &screen{t: t, terminal: vt10x.New(vt10x.WithSize(columns, rows)), ended: make(chan error, 1), changed: make(chan struct{})}
	s.program = exec.Command(program(t), args...)
	s.program.Env = append(os.Environ(), "SQLQ_DATABASE_URL="+url, "TERM=xterm-256color", "NO_COLOR=")
	var err error
	if s.pty, err = pty.StartWithSize(s.program, &pty.Winsize{Cols: uint16(columns), Rows: uint16(rows)}); err != nil {
		t.Fatal(err)
	}
	drawn := make(chan struct{})
	go func() {
		defer close(drawn)
		_, _ = io.Copy(s, s.pty) // ends with the program
	}()
	go func() {
		err := s.program.Wait()
		s.ended <- err
	}()
	t.Cleanup(func() {
		_ = s.program.Process.Kill() // it may have ended
		_ = s.pty.Close()
		<-drawn
	})
	return s
}

// Write draws what the program prints.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.terminal.Write(p)
	close(s.changed)
	s.changed = make(chan struct{})
	return n, err
}

// shows waits until the screen holds all of the texts, and returns it.
func (s *screen) shows(texts ...string) string {
	s.t.Helper()
	return s.becomes(strings.Join(texts, " and "), func(now string) bool {
		for _, text := range texts {
			if !strings.Contains(now, text) {
				return false
			}
		}
		return true
	})
}

// showsNot waits until the screen does not hold a text any more.
func (s *screen) showsNot(text string) {
	s.t.Helper()
	s.becomes("no "+text, func(now string) bool { return !strings.Contains(now, text) })
}

func (s *screen) becomes(what string, right func(string) bool) string {
	s.t.Helper()
	patience := time.After(screenPatience)
	for {
		s.mu.Lock()
		now, changed := s.terminal.String(), s.changed
		done := right(now)
		s.mu.Unlock()
		if done {
			return now
		}
		select {
		case <-changed:
		case <-patience:
			s.t.Fatalf("the screen does not show %s:\n%s", what, now)
		}
	}
}

func (s *screen) press(keys string) {
	s.t.Helper()
	if _, err := io.WriteString(s.pty, keys); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) resize(columns, rows int) {
	s.t.Helper()
	s.mu.Lock()
	s.terminal.Resize(columns, rows)
	s.mu.Unlock()
	if err := pty.Setsize(s.pty, &pty.Winsize{Cols: uint16(columns), Rows: uint16(rows)}); err != nil {
		s.t.Fatal(err)
	}
}

// ends waits for the program's end and wants the terminal as it was: the first screen, the cursor visible.
func (s *screen) ends(wantCode int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), screenPatience)
	defer cancel()
	select {
	case <-s.ended:
		if code := s.program.ProcessState.ExitCode(); code != wantCode {
			s.t.Errorf("exit code %d, want %d", code, wantCode)
		}
	case <-ctx.Done():
		s.t.Fatal("it does not end")
	}
	s.becomes("the first screen", func(string) bool {
		return s.terminal.Mode()&vt10x.ModeAltScreen == 0 && s.terminal.CursorVisible()
	})
}
