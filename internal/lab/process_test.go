package lab_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/internal/lab"
)

func TestMain(m *testing.M) {
	lab.Be("test", echo) // a process that a test started does not come back from here
	pgtest.Main(m)
}

// spoken is what the process of these tests says.
type spoken struct{ Word string }

// echo says what it is told to say, and does what else it is told.
func echo(c *lab.Child) error {
	var greeting string
	if err := c.Spec(&greeting); err != nil {
		return err
	}
	c.Tell(spoken{greeting})
	if word, _ := c.Word(); word != "go" {
		return fmt.Errorf("told %q", word)
	}
	ctx, end := c.Listen(context.Background(), func(word string) {
		switch word {
		case "stray":
			fmt.Println("no JSON")
		case "fail":
			for i := range 1000 {
				fmt.Fprintf(os.Stderr, "line %d\n", i)
			}
			os.Exit(3)
		default:
			c.Tell(spoken{word})
		}
	})
	defer end()
	<-ctx.Done()
	return nil
}

// talk starts a process, has it speak, and returns it with what it has said by its end.
func talk(t *testing.T, words ...string) (p *lab.Process[spoken], said *[]string) {
	t.Helper()
	said = &[]string{}
	p = lab.NewProcess(lab.Command[spoken]{
		Cmd: exec.Command(os.Args[0]), Kind: "test", Spec: "hello", Said: func(s spoken) { *said = append(*said, s.Word) },
	})
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill(); <-p.Ended() })
	for _, word := range words {
		p.Tell(word)
	}
	return p, said
}

func TestProcessIsDismissed(t *testing.T) {
	t.Parallel()
	p, said := talk(t, "go", "one", strings.Repeat("long", 1<<16), "two")
	p.Dismiss()
	<-p.Ended()
	if err := p.Err(); err != nil || len(*said) != 4 || (*said)[0] != "hello" || len((*said)[2]) != 4<<16 || (*said)[3] != "two" {
		t.Errorf("%d words were said: %v", len(*said), err)
	}
}

// What a process logged is in the error with which it failed: its beginning and its end.
func TestProcessFails(t *testing.T) {
	t.Parallel()
	p, _ := talk(t, "go", "fail")
	<-p.Ended()
	var exit *exec.ExitError
	if err := p.Err(); !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(err.Error(), "\nline 0\n") ||
		!strings.HasSuffix(err.Error(), "… 700 more lines …\n"+lines(900, 999)) {
		t.Errorf("got %v", err)
	}
	if first := p.Log().First(); first != "line 0" {
		t.Errorf("it logged %q first", first)
	}
}

func lines(from, to int) string {
	var all []string
	for i := from; i <= to; i++ {
		all = append(all, fmt.Sprintf("line %d", i))
	}
	return strings.Join(all, "\n")
}

// What a process prints without being asked is an error of it, and does not stop what it says then.
func TestProcessStrays(t *testing.T) {
	t.Parallel()
	p, said := talk(t, "go", "stray", "after")
	p.Dismiss()
	<-p.Ended()
	if err := p.Err(); err == nil || !strings.Contains(err.Error(), `it said "no JSON"`) || len(*said) != 2 || (*said)[1] != "after" {
		t.Errorf("said %q: %v", *said, err)
	}
}

// A process that ends by itself has an error even if it exits with 0; one that is killed has one too.
func TestProcessEndsUnasked(t *testing.T) {
	t.Parallel()
	p := lab.NewProcess(lab.Command[spoken]{Cmd: exec.Command(os.Args[0], "-test.run=^$"), Said: func(spoken) {}})
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	<-p.Ended()
	if err := p.Err(); err == nil {
		t.Error("no error")
	}
	killed, _ := talk(t, "go")
	if err := killed.Kill(); err != nil {
		t.Fatal(err)
	}
	<-killed.Ended()
	if killed.Err() == nil || killed.Exit() == nil {
		t.Errorf("%v, %v", killed.Err(), killed.Exit())
	}
}
