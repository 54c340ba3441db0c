package cli

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagCosts are the costs of flags that have one, beyond what the command itself does, by name. The key "NAME of COMMAND" is for
// that command alone.
var flagCosts = map[string]string{
	"attempts":             "looks at each message that the other filters leave",
	"body":                 "reads the body of each message that the other filters leave",
	"body of send":         "none",
	"body of publish":      "none",
	"error":                "reads the text of each failure that the other filters leave",
	"header":               "reads the headers of each message that the other filters leave",
	"header of send":       "its bytes",
	"header of publish":    "its bytes",
	"bodies":               "the role reads what messages say",
	"every":                "shorter: more statements",
	"watch":                "the list's statements, each time",
	"limit":                "more: more is read; 0 takes as long as there are messages",
	"timeout":              "what is done when it ends stays done; the command says how to go on",
	"force":                "the messages are lost",
	"force of bench":       "the schema is lost",
	"continue":             "the messages of damaged lines are missing",
	"fix":                  "each fix is named before it asks",
	"yes":                  "nobody asks twice",
	"rate":                 "slower: it takes longer",
	"within":               "longer: a check that hangs takes as long",
	"concurrency of bench": "more of the machine, and connections",
	"number":               "more: it takes longer, and more disk",
	"size":                 "more: more disk",
	"duration":             "longer: it takes longer",
	"cpuprofile":           "a little time",
	"sabotage":             "the demo fails",
}

// writeFlags writes the flags of every command, and then those of single ones.
func writeFlags(b *strings.Builder, root *cobra.Command) (faults []string) {
	root.PersistentFlags().Lookup("schema").DefValue = "sqlq" // whatever $SQLQ_SCHEMA says here
	used := map[string]bool{}
	cost := func(flag *pflag.Flag, c *cobra.Command) string {
		first, _, _ := strings.Cut(below(c), " ")
		for _, key := range []string{flag.Name + " of " + first, flag.Name} {
			if text := flagCosts[key]; text != "" {
				used[key] = true
				return text
			}
		}
		return "none"
	}
	of := map[knob][]string{}
	leaves(root, func(c *cobra.Command) {
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if f.Hidden || f.Name == "help" {
				return
			}
			k := flagKnob(f, cost(f, c))
			if k.effect == "" {
				faults = append(faults, fmt.Sprintf("%s: --%s has no effect", c.CommandPath(), f.Name))
			}
			of[k] = append(of[k], "`"+below(c)+"`")
		})
	})
	var all []knob
	root.PersistentFlags().VisitAll(func(f *pflag.Flag) { all = append(all, flagKnob(f, cost(f, root))) })
	b.WriteString("\n### Every command\n")
	writeKnobs(b, "flag", all)

	b.WriteString("\n### Single commands\n\n| flag | default | unit | effect | cost | commands |\n|---|---|---|---|---|---|\n")
	for _, k := range slices.SortedFunc(maps.Keys(of), func(x, y knob) int {
		return slices.Compare([]string{strings.TrimLeft(x.name, "-"), of[x][0], x.effect}, []string{strings.TrimLeft(y.name, "-"), of[y][0], y.effect})
	}) {
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s | %s |\n", k.name, cell(k.standard), cell(k.unit), cell(k.effect), cell(k.cost), strings.Join(of[k], ", "))
	}
	for key := range flagCosts {
		if !used[key] {
			faults = append(faults, fmt.Sprintf("flagCosts has %q, which is no flag of a command", key))
		}
	}
	return faults
}

// aDefault finds the default that a flag's text gives where its value does not tell, as pflag's own "(default ...)".
var aDefault = regexp.MustCompile(` \(default:? (.*)\)$`)

// flagKnob reads a flag.
func flagKnob(f *pflag.Flag, cost string) knob {
	unit, effect := pflag.UnquoteUsage(f)
	k := knob{name: "--" + f.Name, standard: f.DefValue, unit: unit, effect: effect, cost: cost}
	if f.Shorthand != "" {
		k.name += ", -" + f.Shorthand
	}
	if m := aDefault.FindStringSubmatchIndex(effect); m != nil {
		k.standard, k.effect = effect[m[2]:m[3]], effect[:m[0]]
	}
	switch {
	case f.Value.Type() == "bool":
		k.unit = "on or off"
		k.standard = map[string]string{"false": "off", "true": "on"}[k.standard]
	case f.NoOptDefVal != "":
		k.unit = "duration; bare: " + f.NoOptDefVal
	case k.unit == "int" || k.unit == "float":
		k.unit = "number"
	case k.unit == "DURATION":
		k.unit = "duration"
	case k.unit == "string":
		k.unit = "text"
	case k.unit == "strings":
		k.unit = "texts"
	}
	if k.standard == "" || k.standard == "[]" {
		k.standard = "none"
	}
	return k
}

// variables are the environment variables that the command, and what it starts, look at.
var variables = []knob{
	{"SQLQ_DATABASE_URL", "none", "URL, or keywords and values", "the database to work on, if `--database-url` is not given", "none"},
	{"DATABASE_URL", "none", "URL, or keywords and values", "the same, if `SQLQ_DATABASE_URL` is not set", "none"},
	{"PGHOST", "as libpq has it", "text", "the host, if neither is set; likewise `PGPORT`, `PGUSER`, `PGPASSWORD`, `PGPASSFILE`, `PGDATABASE`, `PGSSLMODE`, `PGSERVICE` and the other variables of libpq that pgx knows", "none"},
	{"SQLQ_SCHEMA", "sqlq", "name", "the default of `--schema`", "none"},
	{"SQLQ_LISTEN_URL", "none", "URL, or keywords and values", "the default of `--listen-url` of `sqlq doctor`", "none"},
	{"NO_COLOR", "not set", "anything", "no colour, where `--color` is auto", "none"},
	{"TERM", "as the terminal has it", "name", "`dumb`: no colour, nothing that moves; `sqlq top` does not run", "none"},
	{"VISUAL", "not set", "command line", "the editor of `error edit`", "none"},
	{"EDITOR", "not set", "command line", "the same, if `VISUAL` is not set", "none"},
	{"SQLQ_POSTGRES_BIN", "not set: sqlq looks for one", "folder", "where initdb and postgres are, for `sqlq demo`, `sqlq dev`, `sqlq bench` and tests", "none"},
	{"SQLQ_POSTGRES_IMAGE", "not set: a container only where nothing else is found", "image", "these run a server in a container of this image, with Docker or Podman; it has sh, initdb and postgres in PATH and a user postgres, as the official one does", "slower starts; no tests that crash a server"},
	{"SQLQ_OFFLINE", "not set", "1", "these download neither a package nor an image", "none"},
	{"SQLQ_TEST_POSTGRES", "not set: any", "major version, 14 to 18", "tests use this version, fetched once", "a download of about 25 MB"},
	{"SQLQ_TEST_DATABASE_URL", "not set: a throw-away server", "URL, or keywords and values", "package sqlqtest makes its databases on this server", "a template stays there, and a database for each running test"},
	{"XDG_RUNTIME_DIR", "the user's cache folder", "folder", "where `sqlq dev` notes the URL that `sqlq dev --url` prints", "none"},
	{"XDG_CACHE_HOME", "the system's cache folder of the user; root's is /var/cache", "folder", "where fetched packages, and what makes the next start quick, are kept", "about 100 MB a version"},
	{"DOCKER_HOST", "Docker's own", "URL", "where Docker's engine is; one on another machine is not used", "none"},
	{"CONTAINER_HOST", "Podman's own", "URL", "where Podman's engine is; one on another machine is not used", "none"},
}

// writeVariables writes the variables, and sees to it that these are the ones that the code names.
func writeVariables(b *strings.Builder) (faults []string) {
	writeKnobs(b, "variable", variables)
	listed, named := map[string]bool{}, map[string]bool{}
	for _, v := range variables {
		listed[v.name] = true
	}
	for _, dir := range []string{".", "../../internal/devpg", "../../internal/term", "../../sqlq", "../../sqlq/migrate", "../../sqlq/ops", "../../sqlq/sqlqtest"} {
		files, err := goFiles(dir)
		if err != nil {
			return []string{err.Error()}
		}
		for path, file := range files {
			ast.Inspect(file, func(n ast.Node) bool {
				if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
					name := strings.Trim(l.Value, "\"`")
					named[name] = true
					if ownVariable.MatchString(name) && !listed[name] {
						faults = append(faults, fmt.Sprintf("%s reads %s, which the list of variables in configuration_test.go lacks", path, name))
					}
				}
				return true
			})
		}
	}
	for _, v := range variables {
		if !named[v.name] {
			faults = append(faults, fmt.Sprintf("the code does not name the variable %s", v.name))
		}
	}
	return faults
}

var ownVariable = regexp.MustCompile(`^SQLQ_[A-Z_]+$`)
