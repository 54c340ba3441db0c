package store

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// hostileNames are strings that want to be SQL.
var hostileNames = []string{``, `a`, `A b`, `"`, `""`, `a"b`, `"; DROP SCHEMA sqlq CASCADE; --`, `'`, `it's`, `\`, `\'`, `E'\''; SELECT 1`, `$$`, `$1`, `%s %I %L %[1]s`, "a\x00b", "a\nb",
	`é`, "\xff", `;`, `--`, `/*`, `*/`, `) --`, `U&"\0022"`, `current_user`, `pg_temp`, strings.Repeat(`"`, 200)}

// Whatever the names of schema and queue, the table's name in a statement is two quoted identifiers and nothing else.
func FuzzTable(f *testing.F) {
	for _, schema := range hostileNames {
		f.Add(schema, "x")
		f.Add("sqlq", schema)
	}
	f.Fuzz(func(t *testing.T, schema, queue string) {
		sql := New(schema).ready(queue)
		first, rest := readQuoted(t, sql, '"')
		if !strings.HasPrefix(rest, ".") {
			t.Fatalf("%q: no point follows the schema", sql)
		}
		second, rest := readQuoted(t, rest[1:], '"')
		without := func(s string) string { return strings.ReplaceAll(s, "\x00", "") }
		if rest != "" || first != without(schema) || second != without("q_"+queue) {
			t.Errorf("%q reads as %q and %q, then %q", sql, first, second, rest)
		}
	})
}

// A quoted string is one literal, whose value is the string but for NUL, which no text has.
func FuzzQuote(f *testing.F) {
	for _, s := range hostileNames {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		sql := quote(s)
		if !strings.HasPrefix(sql, "E'") {
			t.Fatalf("%q is not quoted", sql)
		}
		value, rest := readQuoted(t, sql[1:], '\'')
		if rest != "" || value != strings.ReplaceAll(s, "\x00", "") {
			t.Errorf("%q reads as %q, then %q", sql, value, rest)
		}
	})
}

// readQuoted reads what stands in quotes at the beginning, as PostgreSQL does, in a string with escapes, and returns the
// rest.
func readQuoted(t *testing.T, sql string, mark byte) (value, rest string) {
	t.Helper()
	if sql == "" || sql[0] != mark {
		t.Fatalf("%q does not begin with %c", sql, mark)
	}
	var b strings.Builder
	for i := 1; i < len(sql); i++ {
		switch {
		case sql[i] == mark && i+1 < len(sql) && sql[i+1] == mark, mark == '\'' && sql[i] == '\\' && i+1 < len(sql):
			i++
		case sql[i] == mark:
			return b.String(), sql[i+1:]
		}
		b.WriteByte(sql[i])
	}
	t.Fatalf("%q has no end", sql)
	return "", ""
}

// The details of failures are JSON whatever the texts in them.
func FuzzFailureDetails(f *testing.F) {
	for _, s := range hostileNames {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, message, link string) {
		encoded, err := json.Marshal([]Failure{{Message: message, Chain: []string{link}}})
		var back []Failure
		if err == nil {
			err = json.Unmarshal(encoded, &back)
		}
		if err != nil || len(back) != 1 || utf8.ValidString(message) && back[0].Message != message {
			t.Errorf("%q: %s, %v", message, encoded, err)
		}
	})
}
