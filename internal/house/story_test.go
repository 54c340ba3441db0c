package house

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

// story is what a package comment asks its reader to type into several terminals, each line with the terminal's number:
//
//	1$ go run ./cmd/sqlq dev
//	2$ go run ./examples/x
//	2$ ^C
//
// A line without a number comes first in every terminal but the first. A command that does not end is left running; the next one
// in its terminal waits until it ends. ^C interrupts it, once it has printed everything that it is expected to.
type story struct {
	first string
	steps []step
}

type step struct{ terminal, command string }

func (s step) String() string { return s.terminal + "$ " + s.command }

var typed = regexp.MustCompile(`(?m)^\t(\d?)\$ (.+)$`)

// readStory finds the story in a package comment; nil if there is none.
func readStory(doc string) *story {
	s := &story{}
	for _, line := range typed.FindAllStringSubmatch(doc, -1) {
		if line[1] == "" {
			s.first = line[2] + "; "
		} else {
			s.steps = append(s.steps, step{line[1], line[2]})
		}
	}
	if len(s.steps) == 0 {
		return nil
	}
	return s
}

var example = regexp.MustCompile(`go run \./(examples/\S+)`)

// programs returns the folders of the programs that are run.
func (s *story) programs() (dirs []string) {
	for _, step := range s.steps {
		for _, run := range example.FindAllStringSubmatch(step.command, -1) {
			dirs = append(dirs, run[1])
		}
	}
	return dirs
}

// execution is a step that is done or running.
type execution struct {
	step
	want    string // expected output, from the golden file
	process *exec.Cmd
	ended   chan struct{}
	err     error // of the process, once it has ended

	mu     sync.Mutex
	output bytes.Buffer
}

func (s *execution) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.output.Write(p)
}

func (s *execution) printed() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.output.String()
}

// tell follows the story and compares it with the golden file, which is the story with the output of each command, in any
// order of lines. It leaves out what `sqlq dev` prints.
func (s *story) tell(t *testing.T, bin, golden string) {
	t.Helper()
	pgtest.Server(t) // if one must be fetched, do that now, or a program would report it
	env := append(os.Environ(), "XDG_RUNTIME_DIR="+t.TempDir(), "ADDR=localhost:0",
		"PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	var all []*execution
	running := map[string]*execution{} // by terminal
	for i, want := range s.outputs(t, golden) {
		this := &execution{step: s.steps[i], want: want}
		all = append(all, this)
		before := running[this.terminal]
		switch {
		case this.command == "^C":
			before.interrupt(t)
			delete(running, this.terminal)
		case strings.HasPrefix(this.command, "curl "):
			this.curl(t, all)
		default:
			if before != nil {
				before.end(t)
			}
			first := ""
			if i > 0 {
				first = s.first
			}
			this.start(t, env, first)
			running[this.terminal] = this
		}
	}
	for _, this := range slices.Backward(all) {
		if this.process != nil && running[this.terminal] == this {
			this.interrupt(t)
		}
		if normalLines(this.printed()) != normalLines(this.want) && !this.isServer() {
			t.Errorf("%s\nprinted\n%s\nwant, from output.txt,\n%s", this, this.printed(), this.want)
		}
	}
}

// outputs splits the golden file into the expected outputs of the story's steps.
func (s *story) outputs(t *testing.T, golden string) (outputs []string) {
	t.Helper()
	var commands []string
	for line := range strings.Lines(golden) {
		if regexp.MustCompile(`^\d\$ `).MatchString(line) {
			commands, outputs = append(commands, strings.TrimSpace(line)), append(outputs, "")
		} else if len(outputs) > 0 {
			outputs[len(outputs)-1] += line
		}
	}
	var want []string
	for _, step := range s.steps {
		want = append(want, step.String())
	}
	if !slices.Equal(commands, want) {
		t.Fatalf("output.txt has the commands\n%s\nthe package comment has\n%s", strings.Join(commands, "\n"), strings.Join(want, "\n"))
	}
	return outputs
}

// isServer reports whether the command is a server, of which only the end matters.
func (s *execution) isServer() bool { return strings.HasSuffix(s.command, "sqlq dev") }

// start starts the command and returns when it has printed its first line, or has ended.
func (s *execution) start(t *testing.T, env []string, first string) {
	t.Helper()
	command := strings.ReplaceAll(first+"exec "+s.command, "go run ./cmd/sqlq", "sqlq")
	command = example.ReplaceAllStringFunc(command, filepath.Base)
	s.process = exec.Command("sh", "-c", command)
	s.process.Env, s.process.Stdout, s.process.Stderr = env, s, s
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	s.ended = make(chan struct{})
	go func() {
		defer close(s.ended)
		s.err = s.process.Wait()
	}()
	t.Cleanup(func() { // if the test gave up
		_ = s.process.Process.Signal(os.Interrupt)
		select {
		case <-s.ended:
		case <-time.After(10 * time.Second):
			_ = s.process.Process.Kill()
			<-s.ended
		}
	})
	sign, _, _ := strings.Cut(normalStory(s.want), "\n")
	if s.isServer() {
		sign = "Ctrl-C stops it"
	}
	s.await(t, "first line", func() bool { return strings.Contains(normalStory(s.printed()), sign) })
}

// end waits until the command ends.
func (s *execution) end(t *testing.T) {
	t.Helper()
	s.await(t, "end", func() bool { return false })
	if s.err != nil {
		t.Errorf("%s: %v\n%s", s, s.err, s.printed())
	}
}

// interrupt waits until the command has printed what it should, and shuts it down cleanly.
func (s *execution) interrupt(t *testing.T) {
	t.Helper()
	if !s.isServer() {
		s.await(t, "output", func() bool { return normalLines(s.printed()) == normalLines(s.want) })
	}
	_ = s.process.Process.Signal(os.Interrupt) // it may have ended already
	s.end(t)
}

var address = regexp.MustCompile(`listening on http://(\S+)`)

var request = regexp.MustCompile(`^curl (-i )?(?:-d '([^']*)' )?localhost:8080(\S+)$`)

// curl sends a request as curl would, to the program that said where it listens. Of the response headers it shows the status and
// the location. A GET is repeated until the answer is as expected.
func (s *execution) curl(t *testing.T, all []*execution) {
	t.Helper()
	r := request.FindStringSubmatch(s.command)
	var host []string
	for _, other := range all {
		host = append(host, address.FindStringSubmatch(other.printed())...)
	}
	if r == nil || len(host) != 2 {
		t.Fatalf("%s: cannot send this to %q", s, host)
	}
	ask := func() bool {
		var answer *http.Response
		var err error
		if url := "http://" + host[1] + r[3]; r[2] != "" {
			answer, err = http.Post(url, "application/x-www-form-urlencoded", strings.NewReader(r[2]))
		} else {
			answer, err = http.Get(url)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		s.output.Reset()
		if r[1] != "" {
			s.output.WriteString(answer.Proto + " " + answer.Status + "\nLocation: " + answer.Header.Get("Location") + "\n\n")
		}
		if _, err := io.Copy(s, answer.Body); err != nil {
			t.Fatal(err)
		}
		return r[2] != "" || normal(s.printed()) == normal(s.want)
	}
	s.await(t, "answer", ask)
}

// await waits until a condition holds, or the command has ended.
func (s *execution) await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	const patience = 2 * time.Minute
	deadline, tick := time.NewTimer(patience), time.NewTicker(20*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-s.ended:
			return
		case <-deadline.C:
			t.Fatalf("%s: no %s after %v; it printed\n%s\nwant, from output.txt,\n%s", s, what, patience, s.printed(), s.want)
		}
	}
}

func normalStory(text string) string {
	return address.ReplaceAllString(normal(text), "listening on http://ADDRESS")
}

// normalLines is the normal form of lines in any order.
func normalLines(text string) string {
	lines := slices.Collect(strings.Lines(normalStory(text)))
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func TestReadStory(t *testing.T) {
	t.Parallel()
	s := readStory("Package x.\n\n\t1$ go run ./cmd/sqlq dev\n\nFirst:\n\n\t$ export A=b\n\n\t2$ go run ./examples/x/y\n\t2$ ^C\n")
	if got := s.programs(); s.first != "export A=b; " || !slices.Equal(got, []string{"examples/x/y"}) {
		t.Errorf("first %q, programs %q", s.first, got)
	}
	got := s.outputs(t, "1$ go run ./cmd/sqlq dev\n2$ go run ./examples/x/y\na\nb\n2$ ^C\n")
	if !slices.Equal(got, []string{"", "a\nb\n", ""}) {
		t.Errorf("outputs %q", got)
	}
	if readStory("Package x is run by itself:\n\n\tgo run ./examples/x") != nil {
		t.Error("found a story where there is none")
	}
}
