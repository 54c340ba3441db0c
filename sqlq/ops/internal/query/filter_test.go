package query

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// hostileNames are strings that want to be SQL.
var hostileNames = []string{``, `a`, `A b`, `"`, `""`, `a"b`, `"; DROP SCHEMA sqlq CASCADE; --`, `'`, `it's`, `\`, `\'`, `E'\''; SELECT 1`, `$$`, `$1`, `%s %I %L %[1]s`, "a\x00b", "a\nb",
	`é`, "\xff", `;`, `--`, `/*`, `*/`, `) --`, `U&"\0022"`, `current_user`, `pg_temp`, strings.Repeat(`"`, 200)}

// The texts of filters are parameters: whatever they are, the statement is the same.
func FuzzFilter(f *testing.F) {
	for _, s := range hostileNames {
		f.Add(s, s, s, s)
	}
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		for _, table := range []filtered{filteredError, filteredDelayed, filteredReady} {
			with := func(filter Filter) string {
				if table.err == "" { // such a table is not asked for it
					filter.Error, filter.Pattern = "", ""
				}
				if table.status == "" {
					filter.Status, filter.Fingerprint = "", ""
				}
				indexed, scanned, args := base{store.New("sqlq")}.where(table, filter, 1)
				return fmt.Sprint(indexed, scanned, len(args))
			}
			given := Filter{Status: d, Queue: a, Type: b, Fingerprint: c, IDs: []string{a}, Error: b, Pattern: c, Headers: [][2]string{{d, a}, {b, c}}, Body: d}
			plain := Filter{IDs: []string{"x"}, Headers: [][2]string{{"x", "x"}, {"x", "x"}}}
			for to, from := range map[*string]string{&plain.Status: d, &plain.Queue: a, &plain.Type: b, &plain.Fingerprint: c, &plain.Error: b, &plain.Pattern: c, &plain.Body: d} {
				if from != "" {
					*to = "x"
				}
			}
			if with(given) != with(plain) {
				t.Errorf("the condition depends on the texts: %s", with(given))
			}
		}
	})
}
