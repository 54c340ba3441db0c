package house

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

const pgxPath = "github.com/jackc/pgx/v5"

// mayImport says what packages may import besides the standard library: packages of this module by folder, others
// by path, including everything below. Every package of the library, that is, of sqlq/ and migrations/, must be listed here. Tests may
// import anything.
var mayImport = map[string][]string{
	"migrations":              {},
	"sqlq":                    {"sqlq/internal/presence", "sqlq/internal/sending", "sqlq/internal/session", "sqlq/internal/wakeup", "sqlq/internal/store", "sqlq/internal/handmade", "migrations", pgxPath},
	"sqlq/internal/sending":   {"sqlq/internal/session", "sqlq/internal/store", pgxPath},
	"sqlq/internal/wakeup":    {"sqlq/internal/session", "sqlq/internal/store", pgxPath},
	"sqlq/internal/presence":  {"sqlq/internal/session", "sqlq/internal/store", pgxPath},
	"sqlq/internal/session":   {"sqlq/internal/store", pgxPath},
	"sqlq/internal/store":     {pgxPath},
	"sqlq/internal/handmade":  {"sqlq/internal/store"},
	"sqlq/sqlqtest":           {"sqlq", "sqlq/ops", "sqlq/migrate", "sqlq/internal/store", "sqlq/internal/handmade", "migrations", "internal/devpg", "internal/devpg/pgtest", "internal/linediff", pgxPath},
	"sqlq/migrate":            {"migrations", pgxPath, "github.com/pressly/goose/v3"},
	"sqlq/ops":                {"sqlq", "sqlq/internal/store", "sqlq/ops/internal/query", pgxPath},
	"sqlq/ops/internal/query": {"sqlq/internal/store", pgxPath},

	"cmd/sqlq":              {"internal/cli"},
	"internal/devpg":        {pgxPath, "golang.org/x/sys"},
	"internal/devpg/pgtest": {"internal/devpg", "sqlq/migrate", pgxPath},
	"internal/lab":          {pgxPath},
	"internal/term":         {"github.com/charmbracelet/x/ansi", "golang.org/x/term"},
	"testdata":              {},
}

// isLibrary reports whether other modules link the package.
func isLibrary(dir string) bool {
	return dir == "migrations" || dir == "sqlq" || strings.HasPrefix(dir, "sqlq/")
}

// importFaults lists the imports that break a rule.
func importFaults(all []pkg) (faults []string) {
	for _, p := range all {
		allowed, ruled := mayImport[p.dir]
		if isLibrary(p.dir) && !ruled && len(p.files) > 0 {
			faults = append(faults, fmt.Sprintf("package %s has no rule in mayImport: say what it may import", p.dir))
			continue
		}
		for _, f := range p.files {
			for _, imported := range f.imports() {
				within, local := strings.CutPrefix(imported, module+"/")
				switch {
				case local && (within == "cmd" || strings.HasPrefix(within, "cmd/")):
					faults = append(faults, fmt.Sprintf("%s imports %s: nothing imports cmd", f.name, within))
				case local && within == "internal/cli" && p.dir != "cmd/sqlq":
					faults = append(faults, fmt.Sprintf("%s imports %s: only cmd/sqlq does", f.name, within))
				case !ruled || standard(imported) || local && slices.Contains(allowed, within):
				case local || !slices.ContainsFunc(allowed, func(a string) bool { return imported == a || strings.HasPrefix(imported, a+"/") }):
					faults = append(faults, fmt.Sprintf("%s imports %s: package %s may import %s", f.name, imported, p.dir, orNothing(allowed)))
				}
			}
		}
	}
	return faults
}

// standard reports whether a package belongs to the standard library: its path has no host name in front.
func standard(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return !strings.Contains(first, ".")
}

func orNothing(allowed []string) string {
	if len(allowed) == 0 {
		return "only the standard library"
	}
	return "only the standard library and " + strings.Join(allowed, ", ")
}

// statement matches SQL that reads or writes tables, or calls a function of the server.
var statement = regexp.MustCompile(`\b(SELECT\s+\S|INSERT INTO|DELETE FROM|UPDATE\s+\S+\s+SET|TRUNCATE|LOCK TABLE|(CREATE|DROP|ALTER) (TABLE|SCHEMA|INDEX|FUNCTION|DATABASE|ROLE)|pg_[a-z_]+\()`)

// onTables matches SQL on tables.
var onTables = regexp.MustCompile(`(?s)\b(SELECT\s.*\sFROM\s|INSERT INTO|DELETE FROM|UPDATE\s+\S+\s+SET|TRUNCATE|LOCK TABLE)`)

// querying are the methods of pgx that run statements.
var querying = []string{"Exec", "Query", "QueryRow", "SendBatch", "CopyFrom", "Begin", "BeginTx", "BeginFunc", "BeginTxFunc"}

// sqlFaults lists SQL in the wrong place: the command line must have none at all, and the library only in the
// store, except for statements that begin, divide and end transactions.
func sqlFaults(all []pkg) (faults []string) {
	for _, p := range all {
		forbidden := onTables
		switch {
		case p.dir == "internal/cli":
			forbidden = statement
		case p.dir == "sqlq/internal/store" || p.dir != "sqlq" && p.dir != "sqlq/ops" && !strings.HasPrefix(p.dir, "sqlq/internal/"):
			continue
		}
		for _, f := range p.files {
			f.strings(func(at, text string) {
				if sql := forbidden.FindString(text); sql != "" {
					faults = append(faults, fmt.Sprintf("%s: SQL (%.40q): package %s has none; put it into sqlq/internal/store", at, sql, p.dir))
				}
			})
			if p.dir != "internal/cli" {
				continue
			}
			f.calls(func(at, name string) {
				if slices.Contains(querying, name) {
					faults = append(faults, fmt.Sprintf("%s: %s runs a statement: package %s runs none; put it into sqlq/ops", at, name, p.dir))
				}
			})
		}
	}
	return faults
}

// docFaults lists packages without a package comment.
func docFaults(all []pkg) (faults []string) {
	for _, p := range all {
		if p.doc == "" {
			faults = append(faults, fmt.Sprintf("package %s has no doc comment: say what it is above the package clause of one file", p.dir))
		}
	}
	return faults
}

func TestImports(t *testing.T) {
	t.Parallel()
	report(t, importFaults(own(t)))
}

func TestSQLIsInTheStore(t *testing.T) {
	t.Parallel()
	report(t, sqlFaults(own(t)))
}

func TestEveryPackageHasADocComment(t *testing.T) {
	t.Parallel()
	report(t, docFaults(own(t)))
}

func report(t *testing.T, faults []string) {
	t.Helper()
	for _, fault := range faults {
		t.Error(fault)
	}
}

// TestRulesFindFaults plants a fault for each rule.
func TestRulesFindFaults(t *testing.T) {
	t.Parallel()
	const pq = `import "github.com/lib/pq"`
	for _, c := range []struct {
		name, file, text string
		faults           func([]pkg) []string
		want             int
	}{
		{"store imports pgx", "sqlq/internal/store/a.go", `import "github.com/jackc/pgx/v5/pgconn"`, importFaults, 0},
		{"store imports a neighbour of pgx", "sqlq/internal/store/a.go", `import "github.com/jackc/pgx/v5x"`, importFaults, 1},
		{"store imports another driver", "sqlq/internal/store/a.go", pq, importFaults, 1},
		{"store imports the library", "sqlq/internal/store/a.go", `import "github.com/sqlq/sqlq/sqlq"`, importFaults, 1},
		{"library imports the store", "sqlq/a.go", `import "github.com/sqlq/sqlq/sqlq/internal/store"`, importFaults, 0},
		{"library imports goose", "sqlq/a.go", `import "github.com/pressly/goose/v3"`, importFaults, 1},
		{"library imports migrate", "sqlq/a.go", `import "github.com/sqlq/sqlq/sqlq/migrate"`, importFaults, 1},
		{"library imports the standard library", "sqlq/a.go", `import "log/slog"`, importFaults, 0},
		{"ops imports migrations", "sqlq/ops/a.go", `import "github.com/sqlq/sqlq/migrations"`, importFaults, 1},
		{"new package of the library", "sqlq/sqlqotel/a.go", ``, importFaults, 1},
		{"somebody imports cmd", "internal/demo/a.go", `import "github.com/sqlq/sqlq/cmd/sqlq"`, importFaults, 1},
		{"somebody imports the command line", "internal/demo/a.go", `import "github.com/sqlq/sqlq/internal/cli"`, importFaults, 1},
		{"main imports the command line", "cmd/sqlq/a.go", `import "github.com/sqlq/sqlq/internal/cli"`, importFaults, 0},
		{"main imports something else", "cmd/sqlq/a.go", `import "github.com/sqlq/sqlq/sqlq/ops"`, importFaults, 1},
		{"fault on another platform", "sqlq/a_windows.go", pq, importFaults, 1},

		{"command with SQL", "internal/cli/a.go", "const q = `\n\tSELECT 1`", sqlFaults, 1},
		{"command that queries", "internal/cli/a.go", `func f(c interface{ Exec(string) }, q string) { c.Exec(q) }`, sqlFaults, 1},
		{"command that says select", "internal/cli/a.go", `const q = "select a queue to delete from, or update it"`, sqlFaults, 0},
		{"library with SQL on a table", "sqlq/a.go", "const q = `DELETE FROM x`", sqlFaults, 1},
		{"package below the library with SQL on a table", "sqlq/internal/session/a.go", "const q = `DELETE FROM x`", sqlFaults, 1},
		{"library with a savepoint", "sqlq/a.go", "const q = `SAVEPOINT x`", sqlFaults, 0},
		{"ops with SQL on a table", "sqlq/ops/a.go", "const q = `SELECT count(*)\n\tFROM x`", sqlFaults, 1},

		{"no doc comment", "internal/x/a.go", `// Not above the package clause.`, docFaults, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tree := fstest.MapFS{
				c.file:                 {Data: []byte("package x\n\n" + c.text + "\n")},
				"tool/go.mod":          {Data: []byte("module tool\n")},
				"tool/a.go":            {Data: []byte("not Go")},
				".hidden/a.go":         {Data: []byte("not Go")},
				"sqlq/ignored_test.go": {Data: []byte("not Go")},
			}
			all := slices.DeleteFunc(packages(t, tree), func(p pkg) bool { return p.files == nil })
			if got := c.faults(all); len(got) != c.want {
				t.Errorf("%d faults, want %d: %q", len(got), c.want, got)
			}
		})
	}
}
