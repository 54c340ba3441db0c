package ops

import "context"

// Severity says how bad a finding is.
type Severity string

const (
	SeverityProblem Severity = "problem" // something does not work, or will stop working
	SeverityWarning Severity = "warning" // it works, worse than it could, or something needs looking at
	SeverityNote    Severity = "note"    // worth knowing; nothing is wrong
)

// Finding is something that Doctor found.
type Finding struct {
	Severity Severity // how bad it is
	What     string   // what is the case, with names and numbers
	Why      string   // why that matters
	Mend     string   // the command that mends it, or what to do; "": nothing needs doing
	SQL      bool     // Mend is SQL
	Fixable  bool     // Fix can do it
	Fixed    string   // what Fix did; "": nothing yet

	fix    func(ctx context.Context) (did string, err error)
	fixing string // what else the same fix mends has the same
}

func problem(what, why, mend string) Finding {
	return Finding{Severity: SeverityProblem, What: what, Why: why, Mend: mend}
}

func warning(what, why, mend string) Finding {
	return Finding{Severity: SeverityWarning, What: what, Why: why, Mend: mend}
}

func note(what, why, mend string) Finding {
	return Finding{Severity: SeverityNote, What: what, Why: why, Mend: mend}
}

// inSQL says that what mends a finding is SQL.
func (f Finding) inSQL() Finding {
	f.SQL = true
	return f
}

// by says that Fix can mend a finding, where the role may, and how. What one call mends for several findings has one name.
func (f Finding) by(may bool, name string, fix func(ctx context.Context) (did string, err error)) Finding {
	f.Fixable, f.fixing, f.fix = may, name, fix
	return f
}
