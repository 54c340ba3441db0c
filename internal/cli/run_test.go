package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// printed is what a run function printed for data, and what it said.
type printed struct{ data, said bytes.Buffer }

// off returns an env on a database, off any terminal, that prints JSON lines.
func (p *printed) off(url string) *env {
	e := newEnv(streams{in: strings.NewReader(""), out: &p.data, err: &p.said})
	e.databaseURL, e.format = url, formatJSONL
	return e
}

// A run function does what its command does without a command line: it takes options, and returns the error that has the exit
// code.
func TestRunFunctionsNeedNoCommandLine(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	var p printed
	e := p.off(pgtest.Database(t))
	wantPrinted := func(want string) {
		t.Helper()
		if got := p.data.String(); got != want {
			t.Errorf("printed %q, want %q; said %s", got, want, &p.said)
		}
		p.data.Reset()
	}
	if err := runQueueCreate(ctx, e, &queueCreateOptions{names: []string{"sales"}}); err != nil {
		t.Fatal(err)
	}
	wantPrinted(`{"queue":"sales","created":true}` + "\n")

	out := outgoing{Outgoing: ops.Outgoing{Type: "sales.PlaceOrder"}, body: `{"order": 17}`, bodyFrom: "the body"}
	if err := runSend(ctx, e, &sendOptions{outgoing: out, queue: "sales"}); err != nil {
		t.Fatal(err)
	}
	var sent struct{ ID string }
	if err := json.Unmarshal(p.data.Bytes(), &sent); err != nil || sent.ID == "" {
		t.Errorf("sent %q, err %v", &p.data, err)
	}
	p.data.Reset()

	pause := &queuePauseOptions{names: []string{"sales"}}
	if err := runQueuePause(ctx, e, pauseQueues, pause); err != nil {
		t.Fatal(err)
	}
	wantPrinted(`{"queue":"sales","changed":true}` + "\n")

	drop := &queueDropOptions{queue: "sales"}
	if err := runQueueDrop(ctx, e, drop); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("a queue with a message: %v", err)
	}
	drop.force = true
	var coded *codedError
	if err := runQueueDrop(ctx, e, drop); !errors.As(err, &coded) || coded.code != exitUsage {
		t.Errorf("off a terminal without --yes: %v", err)
	}
	drop.yes = true
	if err := runQueueDrop(ctx, e, drop); err != nil {
		t.Fatal(err)
	}
	wantPrinted(`{"queue":"sales","messages_removed":1}` + "\n")

	coded = nil
	if err := runErrorChange(ctx, e, replayFailed, &errorChangeOptions{names: []string{"17"}}); !errors.As(err, &coded) || coded.code != exitNothing {
		t.Errorf("a replay of a message that is not there: %v", err)
	}
}

// plumbing are the functions whose commands are not built of options, constructor and run function, because they are part of
// all commands.
var plumbing = []string{"noun", "watchable", "noteBeginning"}

// What a command does is in its run function: what cobra calls only takes arguments and flags in, and ends by calling that.
func TestCommandsOnlyCallTheirRunFunction(t *testing.T) {
	t.Parallel()
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	fset, found := token.NewFileSet(), 0
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".go") || strings.HasSuffix(file.Name(), "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(fset, file.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range tree.Decls {
			fn, is := d.(*ast.FuncDecl)
			if !is || slices.Contains(plumbing, fn.Name.Name) {
				continue
			}
			for _, called := range calledByCobra(fn) {
				found++
				if !onlyRuns(called) {
					t.Errorf("%s: the RunE in %s does more than to call a run function", fset.Position(called.Pos()), fn.Name.Name)
				}
			}
		}
	}
	if found < 40 {
		t.Errorf("found only %d commands", found)
	}
}

// calledByCobra returns the function literals that are a RunE.
func calledByCobra(fn *ast.FuncDecl) (found []*ast.FuncLit) {
	add := func(to, value ast.Expr) {
		name := ""
		switch to := to.(type) {
		case *ast.Ident:
			name = to.Name
		case *ast.SelectorExpr:
			name = to.Sel.Name
		}
		if literal, is := value.(*ast.FuncLit); is && name == "RunE" {
			found = append(found, literal)
		}
	}
	ast.Inspect(fn, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.KeyValueExpr:
			add(n.Key, n.Value)
		case *ast.AssignStmt:
			add(n.Lhs[0], n.Rhs[0])
		}
		return true
	})
	return found
}

// onlyRuns reports whether a function has one return, at its end, which calls a function named run….
func onlyRuns(f *ast.FuncLit) bool {
	returns := 0
	ast.Inspect(f.Body, func(n ast.Node) bool {
		if inner, is := n.(*ast.FuncLit); is && inner != f {
			return false
		}
		if _, is := n.(*ast.ReturnStmt); is {
			returns++
		}
		return true
	})
	last, is := f.Body.List[len(f.Body.List)-1].(*ast.ReturnStmt)
	if !is || returns != 1 || len(last.Results) != 1 {
		return false
	}
	call, is := last.Results[0].(*ast.CallExpr)
	if !is {
		return false
	}
	name, is := call.Fun.(*ast.Ident)
	return is && strings.HasPrefix(name.Name, "run")
}
