package cli

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestConfiguration holds docs/configuration.md equal to what it is made from: the doc comments of the library's settings,
// which must say default, unit and cost, the commands' flags, and the table of environment variables below.
// go test ./internal/cli -run TestConfiguration -update writes it.
func TestConfiguration(t *testing.T) {
	t.Parallel()
	want, faults := configurationPage()
	for _, fault := range faults {
		t.Error(fault)
	}
	path := filepath.Join("..", "..", "docs", "configuration.md")
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("docs/configuration.md is not what the code says, err %v; go test ./internal/cli -run TestConfiguration -update mends it", err)
	}
}

// knob is one thing that can be set.
type knob struct{ name, standard, unit, effect, cost string }

// settings are the structs of the library whose fields are knobs, in the order of the page.
var settings = []struct{ dir, name string }{
	{"sqlq", "Config"}, {"sqlq", "Codec"}, {"sqlq", "Endpoint"}, {"sqlq", "Batch"}, {"sqlq", "RetryPolicy"}, {"sqlq", "BreakerPolicy"},
	{"sqlq/ops", "ChangeOptions"}, {"sqlq/ops", "ReplayOptions"}, {"sqlq/ops", "PurgeOptions"}, {"sqlq/ops", "Looking"},
	{"sqlq/ops", "EachOptions"}, {"sqlq/ops", "PageOptions"}, {"sqlq/ops", "FindOptions"}, {"sqlq/ops", "ImportOptions"}, {"sqlq/ops", "DoctorOptions"},
}

// configurationPage makes the page, and says what is missing where.
func configurationPage() (page string, faults []string) {
	var b strings.Builder
	b.WriteString(`# Configuration

Everything that can be set: in the library, in the operator's Go API, on the command line, in the environment. This page is made
from the doc comments and the commands; ` + "`go test ./internal/cli -run TestConfiguration -update`" + ` renews it. The zero value of each
setting of the library is its default.
`)
	sources := map[string]map[string]*ast.File{}
	for _, s := range settings {
		if sources[s.dir] == nil {
			files, err := goFiles(filepath.Join("..", "..", s.dir))
			if err != nil {
				return "", []string{err.Error()}
			}
			sources[s.dir] = files
		}
	}
	for i, s := range settings {
		about, knobs, missing := structKnobs(sources[s.dir], s.name)
		name := pathBase(s.dir) + "." + s.name
		for _, m := range missing {
			faults = append(faults, name+": "+m)
		}
		if i == 0 {
			b.WriteString("\n## The library\n")
		} else if settings[i-1].dir != s.dir {
			writeSendOptions(&b, sources[settings[i-1].dir], &faults)
			b.WriteString("\n## The operator's Go API\n")
		}
		fmt.Fprintf(&b, "\n### %s\n\n%s\n", name, strings.Join(folded(strings.Fields(about), 128), "\n"))
		writeKnobs(&b, "field", knobs)
	}
	b.WriteString("\n## The command line\n\nFlags that read the same, have the same default and cost the same in several commands are one row.\n")
	b.WriteString("[The pages of the commands](cli/README.md) have them by command.\n")
	faults = append(faults, writeFlags(&b, tree())...)
	b.WriteString("\n## The environment\n")
	faults = append(faults, writeVariables(&b)...)
	return b.String(), faults
}

// goFiles parses the files of a package without its tests.
func goFiles(dir string) (map[string]*ast.File, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	files := map[string]*ast.File{}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		files[path] = file
	}
	return files, nil
}

// structKnobs reads the exported fields of a struct.
func structKnobs(files map[string]*ast.File, name string) (about string, knobs []knob, missing []string) {
	for _, path := range slices.Sorted(maps.Keys(files)) {
		for _, d := range files[path].Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE {
				continue
			}
			for _, spec := range g.Specs {
				s, ok := spec.(*ast.TypeSpec)
				if !ok || s.Name.Name != name {
					continue
				}
				fields, ok := s.Type.(*ast.StructType)
				if !ok {
					continue
				}
				for _, f := range fields.Fields.List {
					if len(f.Names) == 0 || !f.Names[0].IsExported() {
						continue
					}
					k, fault := readComment(f.Names[0].Name, f.Doc.Text(), f.Type)
					knobs = append(knobs, k)
					if fault != "" || len(f.Names) > 1 {
						missing = append(missing, f.Names[0].Name+": "+fault)
					}
				}
				return asLine(g.Doc.Text()), knobs, missing
			}
		}
	}
	return "", nil, []string{"there is no such struct"}
}

// writeSendOptions writes the functions that return a SendOption.
func writeSendOptions(b *strings.Builder, files map[string]*ast.File, faults *[]string) {
	var knobs []knob
	for _, path := range slices.Sorted(maps.Keys(files)) {
		for _, d := range files[path].Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv != nil || f.Type.Results == nil || len(f.Type.Results.List) != 1 || !f.Name.IsExported() {
				continue
			}
			if result, ok := f.Type.Results.List[0].Type.(*ast.Ident); !ok || result.Name != "SendOption" {
				continue
			}
			var kind ast.Expr = ast.NewIdent("bool")
			if p := f.Type.Params.List; len(p) == 1 {
				kind = p[0].Type
			}
			k, fault := readComment(f.Name.Name, f.Doc.Text(), kind)
			knobs = append(knobs, k)
			if fault != "" {
				*faults = append(*faults, "sqlq."+f.Name.Name+": "+fault)
			}
		}
	}
	b.WriteString("\n### Options of Send, Publish and their like\n\nEach changes how one message is sent or published.\n")
	writeKnobs(b, "option", knobs)
}

// part matches what a comment says after its effect. Each part ends where the next begins.
var part = regexp.MustCompile(`(?:^|\s)(Default|Unit|Cost): `)

// units are those that a type tells.
var units = map[string]string{
	"time.Duration": "duration", "bool": "on or off", "Codec": "codec", "[]Handler": "handlers", "RetryPolicy": "policy", "*slog.Logger": "logger",
}

// readComment takes a comment apart: the effect, then default, unit where the type does not tell it, and cost.
func readComment(name, comment string, kind ast.Expr) (k knob, fault string) {
	text := asLine(comment)
	k.name, k.effect = name, text
	said := map[string]string{}
	if marks := part.FindAllStringSubmatchIndex(text, -1); marks != nil {
		k.effect = strings.TrimSpace(text[:marks[0][0]])
		for i, m := range marks {
			end := len(text)
			if i+1 < len(marks) {
				end = marks[i+1][0]
			}
			said[text[m[2]:m[3]]] = strings.TrimSpace(text[m[1]:end])
		}
	}
	k.standard, k.unit, k.cost = trimmed(said["Default"]), trimmed(said["Unit"]), trimmed(said["Cost"])
	spelled := types.ExprString(kind)
	if k.unit == "" {
		k.unit = units[spelled]
	}
	if k.unit == "" && strings.Contains(spelled, "func(") {
		k.unit = "function"
	}
	var lacks []string
	for what, value := range map[string]string{"effect": k.effect, "Default: ": k.standard, "Unit: ": k.unit, "Cost: ": k.cost} {
		if value == "" {
			lacks = append(lacks, what)
		}
	}
	if lacks != nil {
		slices.Sort(lacks)
		fault = fmt.Sprintf("its comment does not say %q; it is to read like: Limit is ... Default: 10. Unit: messages. Cost: none.", lacks)
	}
	return k, fault
}

func writeKnobs(b *strings.Builder, what string, knobs []knob) {
	fmt.Fprintf(b, "\n| %s | default | unit | effect | cost |\n|---|---|---|---|---|\n", what)
	for _, k := range knobs {
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", k.name, cell(k.standard), cell(k.unit), cell(k.effect), cell(k.cost))
	}
}

func pathBase(dir string) string { return dir[strings.LastIndexByte(dir, '/')+1:] }

func asLine(text string) string { return strings.Join(strings.Fields(text), " ") }

func trimmed(text string) string { return strings.TrimSuffix(text, ".") }

// cell is a text in a cell of a Markdown table.
func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

// A comment that does not say all is told so.
func TestReadComment(t *testing.T) {
	t.Parallel()
	integer := ast.NewIdent("int")
	k, fault := readComment("Limit", "Limit is the most\nat once: fewer are not. Default: 10. Unit: messages, up to 5. Cost: more: it\ntakes longer.\n", integer)
	if want := (knob{"Limit", "10", "messages, up to 5", "Limit is the most at once: fewer are not.", "more: it takes longer"}); k != want || fault != "" {
		t.Errorf("got %+v, %s", k, fault)
	}
	for comment, lacks := range map[string]string{
		"":                                  `["Cost: " "Default: " "Unit: " "effect"]`,
		"It is. Unit: rows. Cost: none.":    `["Default: "]`,
		"It is. Default: 1. Cost: none.":    `["Unit: "]`,
		"It is. Default: 1. Unit: rows.":    `["Cost: "]`,
		"Default: 1. Unit: rows. Cost: no.": `["effect"]`,
		"It is, by default, 1 row.":         `["Cost: " "Default: " "Unit: "]`,
	} {
		if _, fault := readComment("X", comment, integer); !strings.Contains(fault, lacks) {
			t.Errorf("%q: %q does not say that it lacks %s", comment, fault, lacks)
		}
	}
	if k, fault := readComment("X", "It is. Default: off. Cost: none.", ast.NewIdent("bool")); fault != "" || k.unit != "on or off" {
		t.Errorf("a bool has the unit %q, %s", k.unit, fault)
	}
}
