package ops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// Check is one thing that Doctor looked at.
type Check struct {
	Name     string        // one word or two
	About    string        // the question that it answers
	Findings []Finding     // none: all is well
	NotRun   string        // why it could not be looked at; "": it was
	Took     time.Duration // how long it looked
}

// Result says in a word what came of the check: ok, skipped, or the severity of its worst finding.
func (c Check) Result() string {
	result := "ok"
	if c.NotRun != "" {
		result = "skipped"
	}
	for _, s := range []Severity{SeverityNote, SeverityWarning, SeverityProblem} {
		if slices.ContainsFunc(c.Findings, func(f Finding) bool { return f.Severity == s }) {
			result = string(s)
		}
	}
	return result
}

// MarshalJSON writes the check as sqlq doctor -o json does.
func (c Check) MarshalJSON() ([]byte, error) {
	return encode(struct {
		Name     string    `json:"check"`
		About    string    `json:"about"`
		Result   string    `json:"result"`
		NotRun   string    `json:"skipped,omitempty"`
		Took     float64   `json:"seconds"`
		Findings []Finding `json:"findings"`
	}{c.Name, c.About, c.Result(), c.NotRun, c.Took.Seconds(), listed(c.Findings)})
}

// Diagnosis is all that Doctor looked at.
type Diagnosis struct {
	Checks []Check `json:"checks"` // in the order in which they were made
}

// Count returns how many findings of a severity are left, without those that Fix has fixed.
func (d *Diagnosis) Count(s Severity) (n int64) {
	for _, c := range d.Checks {
		for _, f := range c.Findings {
			if f.Severity == s && f.Fixed == "" {
				n++
			}
		}
	}
	return n
}

// Fixable returns the findings that Doctor.Fix can fix and has not fixed yet.
func (d *Diagnosis) Fixable() (fixable []*Finding) {
	for i := range d.Checks {
		for j := range d.Checks[i].Findings {
			if f := &d.Checks[i].Findings[j]; f.Fixable && f.Fixed == "" {
				fixable = append(fixable, f)
			}
		}
	}
	return fixable
}

// DoctorOptions say what Doctor takes for healthy. The zero value has the defaults.
type DoctorOptions struct {
	// WantVersion is the version that the schema should have, such as migrations.Latest.
	// Default: 0, any. Unit: a version. Cost: none.
	WantVersion int64
	// Kind is what the role should be able to do, one of RoleKinds.
	// Default: what it seems to be meant for. Unit: a kind of role. Cost: none.
	Kind string
	// Queues are those of which the role should be able to do that.
	// Default: all. Unit: names. Cost: none.
	Queues []string
	// Within bounds each check.
	// Default: 5 s. Cost: longer: a check that hangs takes as long.
	Within time.Duration
	// Long is how long a transaction may be open.
	// Default: 5 min. Cost: none.
	Long time.Duration
	// Late is how long a delayed message may be due before it is stuck, and how long one may wait where no instance runs.
	// Default: 1 min. Cost: none.
	Late time.Duration
	// Dead is how many dead rows a table may have.
	// Default: 100,000, ten times what autovacuum waits for. Unit: rows. Cost: none.
	Dead int64
	// Bloat is how much of a table may have no rows in it.
	// Default: 256 MiB. Unit: bytes. Cost: none.
	Bloat int64
	// Failures is how many messages may fail within an hour.
	// Default: 1,000. Unit: messages. Cost: none.
	Failures int64
	// ListenURL is where the endpoints' Config.ListenURL leads: past a transaction pooler, to the database itself. With it the
	// check "listen" is made there, and the pooler is a note.
	// Default: notifications come as the pool's connections do. Unit: a URL. Cost: a connection.
	ListenURL string
	// Known are the names of checks, see CheckNames, whose findings are known and all right for now: they are told as notes.
	// Default: none. Unit: names. Cost: none.
	Known []string
}

func (d DoctorOptions) withDefaults() DoctorOptions {
	or := func(v *time.Duration, otherwise time.Duration) {
		if *v == 0 {
			*v = otherwise
		}
	}
	orMany := func(v *int64, otherwise int64) {
		if *v == 0 {
			*v = otherwise
		}
	}
	or(&d.Within, 5*time.Second)
	or(&d.Long, 5*time.Minute)
	or(&d.Late, time.Minute)
	orMany(&d.Dead, 100_000)
	orMany(&d.Bloat, 256<<20)
	orMany(&d.Failures, 1_000)
	return d
}

// examination is a Doctor at work.
type examination struct {
	*core
	DoctorOptions
	listening *pgx.ConnConfig // nil: as the pool's connections
	server    query.Server
	pooled    bool
	exists    bool // the schema
	may       bool // use it
	owner     string
	version   int64 // of the schema; 0: it has none
	served    bool  // the schema is newer than what is wanted, and will do
	queues    []string
	mayFix    bool // mark instances, give leases back, move messages
	health    []query.TableHealth
	healthOf  error
}

// Examine looks at everything that keeps messages from flowing, or will. It changes nothing; see Fix. Each check takes at most
// the time Within, and one that cannot be made, for want of a privilege or of time, says so and stops no other. The error is that
// of a database that does not answer at all, or of ctx.
func (o Doctor) Examine(ctx context.Context, options DoctorOptions) (*Diagnosis, error) {
	if options.Kind != "" && !slices.Contains(RoleKinds, options.Kind) {
		return nil, fmt.Errorf("kind of role %q is not known: there are %s", options.Kind, quoted(RoleKinds))
	}
	for _, name := range options.Known {
		if !slices.Contains(CheckNames(), name) {
			return nil, fmt.Errorf("there is no check %q: there are %s", name, quoted(CheckNames()))
		}
	}
	e := &examination{core: o.core, DoctorOptions: options.withDefaults()}
	var err error
	if e.listening, err = listening(options); err != nil {
		return nil, err
	}
	if err := e.look(ctx); err != nil {
		return nil, err
	}
	d := &Diagnosis{}
	for _, c := range e.checks() {
		check := Check{Name: c.name, About: c.about}
		if why := e.lacks(c.needs); why != "" {
			check.NotRun = why
		} else {
			began := time.Now()
			bounded, cancel := context.WithTimeout(ctx, e.Within)
			findings, err := c.run(bounded)
			cancel()
			check.Took, check.Findings, check.NotRun = time.Since(began), findings, e.whyNot(err)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if slices.Contains(e.Known, c.name) {
			for i := range check.Findings {
				check.Findings[i].Severity = SeverityNote
			}
		}
		d.Checks = append(d.Checks, check)
	}
	return d, nil
}

// checkup is a check that Doctor makes.
type checkup struct {
	name, about string
	needs       need
	run         func(context.Context) ([]Finding, error)
}

// checks are all checks, in the order in which they are made: the pooler before what depends on it.
func (e *examination) checks() []checkup {
	return []checkup{
		{"server", "Is it a server, and a database, that sqlq runs on?", nothing, e.checkServer},
		{"pooler", "Is the connection a session of its own, with no transaction pooler in between?", nothing, e.checkPooler},
		{"listen", "Does a notification arrive?", nothing, e.checkListen},
		{"connections", "Are connections left?", nothing, e.checkConnections},
		{"locks", "Has nobody but sqlq the advisory locks of sqlq?", tables, e.checkLocks},
		{"migrations", "Has the schema the version that this program needs?", nothing, e.checkMigrations},
		{"grants", "May this role do what it is for?", wantedVersion, e.checkGrants},
		{"row security", "Does each role see its own queues only?", tables, e.checkRowSecurity},
		{"instances", "Do the instances live, and run one version?", wantedVersion, e.checkInstances},
		{"leases", "Is somebody there for each leased message?", wantedVersion, e.checkLeases},
		{"delayed", "Are delayed messages moved when they are due?", wantedVersion, e.checkDelayed},
		{"backlog", "Does somebody handle what waits?", wantedVersion, e.checkBacklog},
		{"inbox", "Are ids of handled messages forgotten when their time has come?", wantedVersion, e.checkInbox},
		{"paused", "Are all queues handed out?", wantedVersion, e.checkPaused},
		{"errors", "Do few messages fail?", wantedVersion, e.checkErrors},
		{"transactions", "Is vacuum free to remove what was deleted?", nothing, e.checkHolders},
		{"dead rows", "Does vacuum keep up?", tables, e.checkDead},
		{"bloat", "Is there little empty space in the tables?", tables, e.checkBloat},
		{"autovacuum", "Is autovacuum on, and set for queues?", nothing, e.checkAutovacuum},
		{"wraparound", "Are there transaction ids and numbers enough?", tables, e.checkHeadroom},
		{"sequences", "Are the numbers that are given out next free?", tables, e.checkSequences},
		{"indexes", "Are all indexes in use?", tables, e.checkIndexes},
	}
}

// CheckNames returns the names of the checks that Doctor makes, in their order.
func CheckNames() (names []string) {
	for _, c := range new(examination).checks() {
		names = append(names, c.name)
	}
	return names
}

// look finds out what all checks want to know.
func (e *examination) look(ctx context.Context) (err error) {
	if e.server, err = e.store.Server(ctx, e.pool); err != nil {
		return fmt.Errorf("ask the server what it is: %w", err)
	}
	if e.exists, e.may, e.owner, err = e.store.Exists(ctx, e.pool); err != nil {
		return fmt.Errorf("look for schema %q: %w", e.store.Name(), err)
	}
	if e.exists && e.may {
		// Who may use the schema and not read the record is told so by the check of grants.
		if e.version, _, err = e.store.Version(ctx, e.pool); err != nil && sqlState(err) != insufficientPrivilege {
			return fmt.Errorf("read version of schema %q: %w", e.store.Name(), err)
		}
		if e.WantVersion > 0 && e.version > e.WantVersion {
			oldest, err := e.store.OldestLibrary(ctx, e.pool)
			e.served = err == nil && oldest <= e.WantVersion
		}
	}
	lacks, err := e.store.Lacks(ctx, e.pool, fixPrivileges, nil)
	if err != nil {
		return fmt.Errorf("ask what role %q may do: %w", e.server.Role, err)
	}
	e.mayFix = e.may && len(lacks) == 0
	e.health, e.healthOf = e.store.TablesHealth(ctx, e.pool)
	for _, h := range e.health {
		if name, is := strings.CutPrefix(h.Table, "q_"); is {
			e.queues = append(e.queues, name)
		}
	}
	return nil
}

// need is what a check needs of the schema.
type need int

const (
	nothing need = iota
	tables
	wantedVersion
)

// lacks says why what a check needs is not there; "": it is.
func (e *examination) lacks(n need) string {
	switch {
	case n >= tables && e.missing():
		return fmt.Sprintf("schema %q has no sqlq tables", e.store.Name())
	case n >= wantedVersion && e.WantVersion != 0 && e.version != 0 && e.version != e.WantVersion && !e.served:
		return fmt.Sprintf("schema %q has version %d, not %d", e.store.Name(), e.version, e.WantVersion)
	}
	return ""
}

// missing reports whether there is no schema, or one without tables.
func (e *examination) missing() bool {
	return !e.exists || e.may && e.version == 0 && len(e.health) == 0
}

// whyNot says why a check could not be made; "" for one that was.
func (e *examination) whyNot(err error) string {
	var pg *pgconn.PgError
	var cannot *cannotCheckError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &cannot):
		return cannot.why
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("not done within %s", e.Within)
	case errors.As(err, &pg) && pg.Code == insufficientPrivilege:
		return fmt.Sprintf("role %q may not: %s", e.server.Role, pg.Message)
	case errors.As(err, &pg):
		return pg.Message
	}
	return err.Error()
}

// cannotCheckError is why a check makes no sense here.
type cannotCheckError struct{ why string }

func (e *cannotCheckError) Error() string { return e.why }

// Fix fixes what is fixable in a diagnosis, each finding on its own, and sets Fixed. Each fix is recorded as an operation. An error
// does not stop the others; all errors are returned.
func (o Doctor) Fix(ctx context.Context, d *Diagnosis) error {
	var failures []error
	done := map[string]string{}
	for _, f := range d.Fixable() {
		if did, is := done[f.fixName]; is {
			f.Fixed = did
			continue
		}
		id, err := o.begin(ctx, kindFix, map[string]string{"finding": f.What}, query.Operation{})
		if err != nil {
			return errors.Join(append(failures, err)...)
		}
		did, err := f.apply(ctx)
		if err == nil {
			f.Fixed, done[f.fixName] = did, did
		} else {
			err = fmt.Errorf("%s: %w", f.What, err)
		}
		failures = append(failures, err, o.end(ctx, id, err))
	}
	return errors.Join(failures...)
}

// PreviewFix marks the findings of a diagnosis that Fix would fix, and returns them. It changes nothing and does not query the database.
func (o Doctor) PreviewFix(d *Diagnosis) []*Finding {
	fixable := d.Fixable()
	for _, f := range fixable {
		f.WouldFix = true
	}
	return fixable
}

// fixPrivileges are the privileges that Fix needs.
var fixPrivileges = []query.Privilege{
	{Name: "EXECUTE", On: "function", Object: "recover_leased"}, {Name: "EXECUTE", On: "function", Object: "move_due"},
	{Name: "UPDATE", On: "column", Object: "instance", Column: "crashed_at"}, {Name: "INSERT", On: "table", Object: "operation"},
}
