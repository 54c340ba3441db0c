package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

// endsAfter calls end after so many writes.
type endsAfter struct {
	written bytes.Buffer
	left    int
	end     func()
}

func (w *endsAfter) Write(p []byte) (int, error) {
	if w.left--; w.left == 0 {
		w.end()
	}
	return w.written.Write(p)
}

// On a terminal a watched list is painted in one place, on the second screen; Ctrl-C ends it in order, and leaves the last
// round on the first.
func TestWatchOnATerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "1")
	url := "--database-url=" + pgtest.Database(t)
	if code, _, err := command(t, "", url, "queue", "create", "sales"); code != 0 {
		t.Fatal(err)
	}
	ctx, ctrlC := context.WithCancel(t.Context())
	out := &endsAfter{left: 3, end: ctrlC}
	s := streams{in: strings.NewReader(""), out: out, err: out, outTerminal: true, errTerminal: true, width: 80}
	if code := run(ctx, []string{url, "queue", "ls", "--watch=100ms"}, s); code != 0 {
		t.Errorf("exit code %d\n%s", code, &out.written)
	}
	text := out.written.String()
	if !strings.HasPrefix(text, secondScreen+toTheTop) || strings.Count(text, toTheTop) != 3 || strings.Count(text, secondScreen) != 1 {
		t.Errorf("not three rounds on the second screen:\n%q", text)
	}
	if !strings.Contains(text, "sqlq queue ls, every 100ms; Ctrl-C ends") || !strings.Contains(text, clearBelow+firstScreen+"QUEUE  READY") {
		t.Errorf("got\n%q", text)
	}
}

// A round that fails is told, and the next is tried.
func TestWatchGoesOn(t *testing.T) {
	t.Parallel()
	ctx, ctrlC := context.WithCancel(t.Context())
	var out, errs bytes.Buffer
	e := &env{streams: streams{out: &out, err: &errs}, format: formatTable}
	round := 0
	err := watch(ctx, e, "sqlq list", shortestWatch, func() error {
		round++
		switch round {
		case 2:
			return context.DeadlineExceeded
		case 3:
			ctrlC()
		}
		e.out.Write([]byte("round\n"))
		return nil
	})
	if err != nil || round != 3 || out.String() != "round\n\n\nround\n" || !strings.Contains(errs.String(), "sqlq: context deadline exceeded; trying again\n") {
		t.Errorf("%d rounds, err %v, printed %q and %q", round, err, out.String(), errs.String())
	}
}
