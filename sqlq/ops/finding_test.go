package ops_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// declared wants each finding of a diagnosis to be of a kind that is declared for its check, about a subject of such a kind, and no
// two to be the same for an alert.
func declared(t *testing.T, d *ops.Diagnosis) {
	t.Helper()
	type matter struct {
		code    string
		subject ops.Subject
	}
	seen := map[matter]string{}
	for _, c := range d.Checks {
		for _, f := range c.Findings {
			i := slices.IndexFunc(ops.FindingKinds(), func(k ops.FindingKind) bool { return k.Code == f.Code })
			if i < 0 {
				t.Errorf("%s: code %q is not declared: %s", c.Name, f.Code, f.What)
				continue
			}
			k := ops.FindingKinds()[i]
			if k.Check != c.Name {
				t.Errorf("code %q of check %q was found by %q: %s", f.Code, k.Check, c.Name, f.What)
			}
			if whole := f.Subject == (ops.Subject{}); whole != (len(k.Subjects) == 0) || !whole && (!slices.Contains(k.Subjects, f.Subject.Kind) || f.Subject.Name == "") {
				t.Errorf("code %q is about %+v, want one of %q: %s", f.Code, f.Subject, k.Subjects, f.What)
			}
			if f.Subject.Name != "" && !strings.Contains(f.What, strings.Trim(fmt.Sprintf("%q", f.Subject.Name), `"`)) {
				t.Errorf("code %q is about %+v, and its text does not say so: %s", f.Code, f.Subject, f.What)
			}
			of := matter{f.Code, f.Subject}
			if other, is := seen[of]; is {
				t.Errorf("two findings are %+v:\n%s\n%s", of, other, f.What)
			}
			seen[of] = f.What
		}
	}
}

// Codes are for alerts: each means one thing, and is written as all are.
func TestFindingKinds(t *testing.T) {
	t.Parallel()
	written := regexp.MustCompile(`^[a-z]+(-[a-z]+)+$`)
	checks, seen := ops.CheckNames(), map[string]bool{}
	for _, k := range ops.FindingKinds() {
		if !written.MatchString(k.Code) || seen[k.Code] || k.Means == "" || strings.Contains(k.Means, "\n") || !slices.Contains(checks, k.Check) {
			t.Errorf("%+v: badly written, or there twice", k)
		}
		seen[k.Code] = true
		if slices.Contains(k.Subjects, "") {
			t.Errorf("%s: a subject without a name", k.Code)
		}
	}
	for _, check := range checks {
		if !slices.ContainsFunc(ops.FindingKinds(), func(k ops.FindingKind) bool { return k.Check == check }) {
			t.Errorf("check %q finds nothing", check)
		}
	}
}

// Findings are made by functions that want a declared kind, nowhere else.
func TestFindingsAreMadeOfKinds(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	made := regexp.MustCompile(`(^|[^\]])Finding(Kind)?\{\S`)
	for _, name := range files {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(source), "\n") {
			if name != "finding.go" && !strings.HasSuffix(name, "_test.go") && made.MatchString(line) && !strings.Contains(line, "Finding{}") {
				t.Errorf("%s:%d makes one by itself: %s", name, i+1, strings.TrimSpace(line))
			}
		}
	}
}

// docs/operating.md has a table of all codes.
func TestFindingKindsAreDocumented(t *testing.T) {
	t.Parallel()
	var table strings.Builder
	table.WriteString("| code | check | subject | what is the case |\n|---|---|---|---|\n")
	for _, k := range ops.FindingKinds() {
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", k.Code, k.Check, strings.Join(k.Subjects, ", "), k.Means)
	}
	page, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "\n\n"+table.String()) {
		t.Errorf("docs/operating.md has not the table that the code has:\n%s", table.String())
	}
}
