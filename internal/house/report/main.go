// Report reads the output of `go test -json` and prints what a person wants to see: go test's own line for each package, the
// output of each test that failed, each test that was skipped, and at the end how many there were and which took longest.
//
//	go test -json ./... | go run ./internal/house/report -skips .ci/skips
//
// It exits 1 if a test or a package failed, if no test ran, or if a test was skipped that is not on the list. The list has a line
// for each test that may be skipped, and why: the package's folder, a dot, the test's name, white space, the reason. Lines that
// start with # are ignored.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

const module = "github.com/sqlq/sqlq"

func main() {
	list := flag.String("skips", "", "file that lists the tests that may be skipped; without it none may")
	flag.Parse()
	allowed := map[string]bool{}
	if *list != "" {
		text, err := os.ReadFile(*list)
		if err == nil {
			allowed, err = readSkips(string(text))
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "report: read the list of skips: %v\n", err)
			os.Exit(1)
		}
	}
	if !report(os.Stdin, os.Stdout, allowed) {
		os.Exit(1)
	}
}

// readSkips reads the list of tests that may be skipped.
func readSkips(text string) (map[string]bool, error) {
	allowed := map[string]bool{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || strings.HasPrefix(fields[0], "#"):
		case len(fields) == 1:
			return nil, fmt.Errorf("%s is listed without a reason", fields[0])
		default:
			allowed[fields[0]] = true
		}
	}
	return allowed, nil
}

// event is a line of `go test -json`; see `go doc test2json`.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64 // seconds
}

// name is the event's test as the list of skips names it.
func (e event) name() string {
	return strings.TrimPrefix(strings.TrimPrefix(e.Package, module), "/") + "." + e.Test
}

// report prints the events and reports whether everything passed.
func report(events io.Reader, out io.Writer, allowed map[string]bool) bool {
	ran, well := 0, true
	var sum summary
	running := map[event]*strings.Builder{} // what each unfinished test has printed, by Package and Test
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Action == "" {
			fmt.Fprintf(out, "%s\n", lines.Bytes()) // a message from go itself
			continue
		}
		key := event{Package: e.Package, Test: e.Test}
		switch e.Action {
		case "output":
			switch {
			case e.Test == "" && e.Output != "PASS\n":
				fmt.Fprint(out, e.Output)
			case e.Test != "":
				if running[key] == nil {
					running[key] = &strings.Builder{}
				}
				running[key].WriteString(e.Output)
			}
		case "build-output":
			fmt.Fprint(out, e.Output)
		case "build-fail":
			well = false
		case "pass", "fail", "skip":
			sum.add(e)
			if e.Test == "" {
				well = well && e.Action != "fail"
				printUnfinished(out, running, e.Package, e.Action == "fail")
				break
			}
			if e.Action != "skip" {
				ran++
			}
			printed := ""
			if running[key] != nil {
				printed = running[key].String()
			}
			delete(running, key)
			switch {
			case e.Action == "fail":
				well = false
				fmt.Fprint(out, printed)
			case e.Action == "skip" && allowed[e.name()]:
				fmt.Fprintf(out, "skipped, as the list allows: %s\n", e.name())
			case e.Action == "skip":
				well = false
				fmt.Fprintf(out, "%sskipped, and not on the list of tests that may be: %s\n", printed, e.name())
			}
		}
	}
	if err := lines.Err(); err != nil {
		fmt.Fprintf(out, "report: read the results of go test: %v\n", err)
		return false
	}
	if ran == 0 {
		fmt.Fprintln(out, "report: no test ran")
		return false
	}
	fmt.Fprintln(out, sum)
	return well
}

// summary counts tests, without those that are part of another.
type summary struct {
	passed, failed, skipped int
	all                     []event
}

func (s *summary) add(e event) {
	if e.Test == "" || strings.Contains(e.Test, "/") {
		return
	}
	switch e.Action {
	case "pass":
		s.passed++
	case "fail":
		s.failed++
	case "skip":
		s.skipped++
	}
	s.all = append(s.all, e)
}

// String says what was found, with the tests that took longest.
func (s summary) String() string {
	const longest = 5
	slices.SortStableFunc(s.all, func(a, b event) int { return cmp.Compare(b.Elapsed, a.Elapsed) })
	text := fmt.Sprintf("%d tests passed, %d failed, %d were skipped; the longest:", s.passed, s.failed, s.skipped)
	for _, e := range s.all[:min(longest, len(s.all))] {
		text += fmt.Sprintf(" %s %.0f s", e.name(), e.Elapsed)
	}
	return text
}

// printUnfinished prints the output of a package's tests that did not finish because the process ended.
func printUnfinished(out io.Writer, running map[event]*strings.Builder, pkg string, failed bool) {
	var keys []event
	for key := range running {
		if key.Package == pkg {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b event) int { return strings.Compare(a.Test, b.Test) })
	for _, key := range keys {
		if failed {
			fmt.Fprint(out, running[key])
		}
		delete(running, key)
	}
}
