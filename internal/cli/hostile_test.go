package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/internal/hostile"
	"github.com/sqlq/sqlq/internal/term"
)

// besideHostile are lines of each command that are run beside hostile rows, in this order, and the exit codes with which they
// may end. Those of one command are about well-behaved messages, or about all: none fails because of a row.
// Where counting takes too long a dry run estimates, and does not say that there is nothing.
var besideHostile = []struct {
	line  string
	codes []int
}{
	{"queue ls", nil}, {"queue show good", nil}, {"queue show hostile", nil},
	{"queue peek hostile -n 0", nil}, {"queue peek good", nil}, {"queue peek hostile -n 0 --order newest", nil},
	{"queue peek hostile --body $.order", []int{exitNothing}}, {"queue peek good --body $.**", nil}, {"queue peek hostile --body $.** -n 0", nil},
	{"queue peek hostile --header tenant=north", []int{exitNothing}}, {"queue peek hostile --since 1h -n 0", nil},
	{"queue tail hostile --for 300ms", nil},
	{"queue export hostile --delayed", nil}, {"queue export good", nil},
	{"error ls -n 0 --status any", nil}, {"error ls --order oldest -n 0", nil}, {"error ls --queue good", nil}, {"error ls --body $.order -n 0", nil},
	{"error ls --body $.** -n 0", nil}, {"error ls --header tenant=north --status any -n 0", nil}, {"error ls --error plain -n 0", nil},
	{"error count", nil}, {"error count --body $.order", nil}, {"error groups", nil}, {"error groups --status any -n 0", nil},
	{"error show " + hostile.GoodID, nil}, {"error export --status any", nil}, {"error export --order oldest", nil},
	{"delayed ls -n 0", nil}, {"delayed ls --order newest -n 0", nil}, {"delayed ls --body $.order", nil}, {"delayed ls --header tenant=north", nil},
	{"delayed show " + hostile.GoodID, nil},
	{"lease ls -n 0", nil}, {"instance ls --all -n 0", nil}, {"instance ls -n 0", nil},
	{"operation ls -n 0", []int{exitUsage}}, {"operation ls -n 1000", nil}, {"operation ls --status stalled", nil}, {"operation show 1", nil}, {"operation show 25", []int{exitNothing}},
	{"find 0198c0de-7a00-7000-8000-000000000001", nil}, {"subscription ls", nil}, {"route explain sales.PlaceOrder", nil}, {"route explain T", nil},
	{"doctor", []int{exitFindings}}, {"config show", nil}, {"version", nil}, {"migrate status", nil}, {"migrate sql", nil}, {"migrate up", nil},
	{"migrate validate", []int{exitFindings}}, {"migrate down --dry-run", nil},

	{"send good sales.PlaceOrder {}", nil}, {"queue create other", nil}, {"queue pause --all", nil}, {"queue resume --all", nil},
	{"subscription add sales.Placed good", nil}, {"publish sales.Placed {}", nil}, {"subscription rm sales.Placed good", nil},
	{"grant postgres viewer --dry-run", nil}, {"revoke postgres --dry-run", nil},
	{"error edit " + hostile.GoodID + " --set-header a=b", nil},
	{"error archive " + hostile.GoodID, nil}, {"error unarchive " + hostile.GoodID, nil}, {"error replay " + hostile.GoodID + " --yes", nil},
	{"delayed reschedule " + hostile.GoodID + " --in 2h", nil}, {"delayed now " + hostile.GoodID, nil}, {"delayed cancel --type no.Such --yes", []int{exitNothing}},
	{"delayed reschedule --body $.absent --in 1h --yes", []int{exitNothing, 0}}, {"delayed cancel --body $.absent --yes", []int{exitNothing, 0}},
	{"lease release " + hostile.GoodID + " --yes", nil},
	{"error archive --body $.absent --yes", []int{exitNothing, 0}}, {"error replay --header tenant=no --yes", []int{exitNothing, 0}},
	{"queue move good other --yes", nil}, {"queue import other", nil}, {"operation cancel 1", nil}, {"operation resume 2 --yes", []int{exitError}},
	{"doctor --fix --yes", []int{exitFindings}},
	{"error archive --queue hostile --yes", nil}, {"error unarchive --queue hostile --yes", nil}, {"error delete --all --yes", nil}, {"error delete --status archived --all --yes", []int{0, exitNothing}},
	{"delayed cancel --all --yes", nil}, {"queue purge hostile --yes --delayed", nil}, {"queue purge other --yes", nil}, {"queue drop other --yes --force", nil}, {"queue drop hostile --yes --force", nil},
}

// notBesideHostile are commands that look at no row, or not at those of a database that they are given, and why.
var notBesideHostile = map[string]string{
	"demo": "makes its own database", "dev": "starts a server", "bench": "makes its own database", "completion": "looks at no database", "man": "looks at no database",
	"help": "looks at no database", "top": "a full screen: TestTopBesideHostileRows",
}

// Every command, in every format, where one of each hostile row lies: none fails because of one that it was not asked about,
// none prints what a terminal would obey, and all data can be parsed.
func TestEveryCommandBesideHostileRows(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	hostile.Fill(t, url)
	covered := map[string]bool{}
	for _, each := range besideHostile {
		words := strings.Fields(each.line)
		named, _, err := tree().Find(words)
		if err != nil {
			t.Fatal(err)
		}
		covered[below(named)] = true
		changes := named.Annotations[asks] != "" && !slices.Contains(words, "--dry-run")
		formats := []format{formatTable, "terminal", formatJSON, formatJSONL, formatYAML}
		if changes {
			formats = []format{"terminal", formatYAML, formatTable} // the last one in earnest
		}
		for _, f := range formats {
			args := append([]string{"--database-url", url, "--color", "never"}, words...)
			var out, said bytes.Buffer
			s := streams{in: strings.NewReader(""), out: &out, err: &said}
			if f == "terminal" {
				s.outTerminal, s.errTerminal, s.width = true, true, 100
			} else {
				args = append(args, "-o", string(f))
			}
			if changes && f != formatTable {
				args = append(args, "--dry-run")
			}
			code := run(t.Context(), args, s)
			codes := each.codes
			if codes == nil {
				codes = []int{0}
			}
			onlyLines := code == exitUsage && (strings.Contains(said.String(), "export is") || strings.Contains(said.String(), "tail has no end"))
			if !slices.Contains(codes, code) && !onlyLines && !(changes && f != formatTable && code == exitNothing) {
				t.Errorf("sqlq %s (%s): exit code %d\n%.3000s", each.line, f, code, said.String())
			}
			asItIs := below(named) == "queue export" && f != "terminal" // for queue import
			if at := bytes.IndexFunc(out.Bytes(), term.Obeyed); at >= 0 && !asItIs {
				t.Errorf("sqlq %s (%s): it prints %q", each.line, f, out.Bytes()[max(0, at-80):min(out.Len(), at+20)])
			}
			if at := bytes.IndexFunc(bytes.ReplaceAll(said.Bytes(), []byte("\r"), nil), term.Obeyed); at >= 0 {
				t.Errorf("sqlq %s (%s): it says %q", each.line, f, said.String())
			}
			if err := dataError(f, out.Bytes()); err != nil {
				t.Errorf("sqlq %s (%s): %v in %.300s", each.line, f, err, out.String())
			}
			if out.Len() > 200<<20 {
				t.Errorf("sqlq %s (%s): it prints %d bytes", each.line, f, out.Len())
			}
		}
	}
	leaves(tree(), func(c *cobra.Command) {
		first, _, _ := strings.Cut(below(c), " ")
		if notBesideHostile[first] == "" && !covered[below(c)] {
			t.Errorf("%s: no line in besideHostile", c.CommandPath())
		}
	})
}

// dataError tries what a command printed as data.
func dataError(f format, out []byte) error {
	var v any
	switch f {
	case formatJSON, formatJSONL:
		in := json.NewDecoder(bytes.NewReader(out))
		in.UseNumber()
		for {
			if err := in.Decode(&v); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
		}
	case formatYAML:
		return yaml.Unmarshal(out, &v)
	}
	return nil
}
