package sqlq

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// statement is what is known of the text of a handler's SQL.
type statement struct {
	refused    error    // it would end the receive transaction, or break what the library keeps in it
	touches    bool     // it changes what outlives it: settings, temporary objects, other state of the session
	replaces   bool     // and nothing but a new session takes that back
	settings   []string // settings that it names
	named      []int    // parameters whose values name one, counted from 1
	savepoints int      // it makes so many
	several    bool     // it may be more than one statement

	params *pgconn.StatementDescription // as the server described it; nil: nobody has asked
}

const (
	maxStatements     = 500      // that a connection remembers
	maxRememberedText = 16 << 10 // bytes of SQL; a longer text is read each time
)

// statement returns what is known of an SQL string.
func (c *conn) statement(sql string) *statement {
	if s := c.statements[sql]; s != nil {
		return s
	}
	s := readStatement(sql)
	if len(sql) > maxRememberedText {
		return s
	}
	if c.statements == nil || len(c.statements) >= maxStatements {
		c.statements = map[string]*statement{}
	}
	c.statements[sql] = s
	return s
}

var (
	// setsByStatement and setsByFunction find the names of settings in SQL, that of function bodies included.
	setsByStatement = regexp.MustCompile(`(?i)\b(?:SET|RESET)\s+(?:LOCAL\s+|SESSION\s+)?([a-z_][\w$]*(?:\.[a-z_][\w$]*)*)`)
	setsByFunction  = regexp.MustCompile(`(?i)\bset_config\s*\(\s*(?:'([\w$.]+)'|\$(\d+))`)
)

// readStatement reads an SQL string, which may hold several statements.
func readStatement(sql string) *statement {
	s := &statement{}
	for rest := sql; rest != ""; {
		var words []string
		var lead int
		words, lead, rest = cutStatement(rest)
		if s.refused == nil {
			s.refused = refuseControl(words[:lead])
		}
		s.judge(words)
		s.several = s.several || rest != ""
	}
	if !s.touches {
		return s
	}
	for _, found := range setsByStatement.FindAllStringSubmatch(sql, -1) {
		s.settings = append(s.settings, strings.ToLower(found[1]))
	}
	for _, found := range setsByFunction.FindAllStringSubmatch(sql, -1) {
		if n, err := strconv.Atoi(found[2]); err == nil {
			s.named = append(s.named, n)
		} else {
			s.settings = append(s.settings, strings.ToLower(found[1]))
		}
	}
	return s
}

// judge notes what a statement with these words changes beyond rows. It errs on the side of a change: then a message has a
// transaction of its own without need. What a function or a trigger does shows in no text.
func (s *statement) judge(words []string) {
	if len(words) == 0 {
		return
	}
	switch words[0] {
	case "SAVEPOINT":
		s.savepoints++
	case "SET", "RESET", "DISCARD", "LISTEN", "UNLISTEN", "PREPARE", "DEALLOCATE", "DECLARE", "DO":
		s.touches = true
	case "LOAD":
		s.touches, s.replaces = true, true
	case "CREATE":
		for _, word := range words[1:min(len(words), 5)] { // CREATE OR REPLACE TEMP VIEW
			s.touches = s.touches || isTemporary(word)
		}
	}
	for i, word := range words {
		switch {
		case word == "SET_CONFIG" || word == "PG_TEMP":
			s.touches = true
		case isTemporary(word) && i > 0 && (words[i-1] == "INTO" || words[i-1] == "LOCAL" || words[i-1] == "GLOBAL"):
			s.touches = true
		case strings.HasPrefix(word, "PG_ADVISORY_") || strings.HasPrefix(word, "PG_TRY_ADVISORY_"):
			s.touches = s.touches || !strings.Contains(word, "_XACT_")
		}
	}
}

func isTemporary(word string) bool { return word == "TEMP" || word == "TEMPORARY" }
