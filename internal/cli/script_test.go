package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// The cases in which scripts run every command.
const (
	inNormal = "normal" // it ends well, and its text is looked at
	inEmpty  = "empty"  // exit code 5, or below a comment that begins with Nothing
	inError  = "error"  // exit code 1, 2 or 4
	inJSON   = "json"   // -o json, jsonl or yaml
)

var allCases = []string{inNormal, inEmpty, inError, inJSON}

// heldElsewhere are commands whose output scripts cannot hold, or not in every case, and what does.
var heldElsewhere = map[string]string{
	"top":        "a full screen: top_test.go drives it through a pseudo-terminal; usage.txtar has its errors",
	"completion": "scripts for shells, which have neither rows nor JSON: usage.txtar",
	"man":        "pages for man, likewise: usage.txtar",
	"help":       "the text that --help prints: usage.txtar and TestDocs",
	"demo":       "its figures differ each time: demo.txtar, and it checks itself with an audit",
	"dev":        "it prints what the command does that it runs: dev.txtar",
	"bench":      "its figures differ each time: bench.txtar",
}

// notOf are cases that a command cannot come into, and why.
var notOf = map[string]map[string]string{
	"version":          {inEmpty: "there is always one", inError: "nothing can go wrong"},
	"config show":      {inEmpty: "there are always settings"},
	"doctor":           {inEmpty: "the checks are always listed"},
	"migrate sql":      {inEmpty: "there are always migrations"},
	"queue create":     {inEmpty: "it is told names"},
	"queue drop":       {inEmpty: "it is told a name"},
	"subscription add": {inEmpty: "it is told names"},
	"grant":            {inEmpty: "it is told a role"},
	"revoke":           {inEmpty: "it is told a role"},
}

// scripted is a line of a script that runs a command, and what the script looks at after it.
type scripted struct {
	at      string
	section string // the last comment above
	code    string // exit code
	words   []string
	looks   []string
}

var runs = regexp.MustCompile(`^(?:exec|exits ([0-9]+)) (?:sqlq|env .* sqlq|sh -c 'sqlq) `)

// scriptLines returns the lines of the scripts that run sqlq.
func scriptLines(t *testing.T) (all []scripted) {
	t.Helper()
	files, err := filepath.Glob("../../testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		section := ""
		last := -1
		for i, line := range strings.Split(string(text), "\n") {
			if strings.HasPrefix(line, "-- ") {
				break
			}
			found := runs.FindStringSubmatch(line + " ")
			switch {
			case strings.HasPrefix(line, "#"):
				section = strings.TrimSpace(line[1:])
			case found != nil:
				call := line[strings.Index(line, "sqlq"):]
				last = len(all)
				all = append(all, scripted{at: fmt.Sprintf("%s:%d", filepath.Base(file), i+1), section: section, code: found[1], words: commandLines(call)[0]})
			case strings.HasPrefix(line, "exec ") || strings.HasPrefix(line, "exits "):
				last = -1
			case last >= 0 && line != "":
				all[last].looks = append(all[last].looks, line)
			}
		}
	}
	return all
}

// in returns the cases that a line of a script holds.
func (s scripted) in() (cases []string) {
	data := slices.ContainsFunc(s.words, func(w string) bool { return w == "json" || w == "jsonl" || w == "yaml" })
	looked := slices.ContainsFunc(s.looks, func(l string) bool {
		return regexp.MustCompile(`^(! )?(stdout|stderr|cmp|holds|exists) `).MatchString(l)
	})
	empty := s.code == "5" || strings.HasPrefix(s.section, "Nothing")
	if data {
		cases = append(cases, inJSON)
	}
	if empty {
		cases = append(cases, inEmpty)
	}
	if slices.Contains([]string{"1", "2", "4"}, s.code) {
		cases = append(cases, inError)
	}
	if s.code == "" && !empty && !data && looked {
		cases = append(cases, inNormal)
	}
	return cases
}

// Scripts run every command on a real database, where it finds something and where it does not, where it fails, and as data.
func TestScriptsRunEveryCommand(t *testing.T) {
	t.Parallel()
	held := map[string]map[string]bool{}
	for _, line := range scriptLines(t) {
		c, _, err := tree().Find(line.words[1:])
		if err != nil {
			continue // a mistyped one
		}
		name := below(c)
		if held[name] == nil {
			held[name] = map[string]bool{}
		}
		for _, each := range line.in() {
			held[name][each] = true
		}
	}
	leaves(tree(), func(c *cobra.Command) {
		name := below(c)
		first, _, _ := strings.Cut(name, " ")
		if heldElsewhere[first] != "" {
			return
		}
		var missing []string
		for _, each := range allCases {
			if notOf[name][each] == "" && !held[name][each] {
				missing = append(missing, each)
			}
		}
		if missing != nil {
			t.Errorf("%s: no script in testdata/script holds: %s", c.CommandPath(), strings.Join(missing, ", "))
		}
	})
	for name := range notOf {
		if c, rest, err := tree().Find(strings.Fields(name)); err != nil || len(rest) > 0 || c.HasSubCommands() {
			t.Errorf("%q is no command", name)
		}
	}
}
