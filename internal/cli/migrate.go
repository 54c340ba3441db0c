package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/migrations"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

func newMigrateCommand(e *env) *cobra.Command {
	return noun("migrate", "Make and change the schema that holds sqlq's tables",
		newMigrateUpCommand(e), newMigrateDownCommand(e), newMigrateStatusCommand(e), newMigrateSQLCommand(e),
		newMigrateValidateCommand(e))
}

// migrateUpOptions are the flags of `sqlq migrate up`.
type migrateUpOptions struct {
	change
}

func newMigrateUpCommand(e *env) *cobra.Command {
	var o migrateUpOptions
	c := &cobra.Command{
		Use:   "up",
		Short: "Apply the migrations that are pending",
		Long: `Make the schema where it is missing and apply the migrations that are pending, each in a transaction of its own. Several
at once are safe.`,
		Example:     "  sqlq migrate up --dry-run\n  sqlq migrate up --schema messaging",
		Args:        noMoreThan(0),
		Annotations: map[string]string{needs: owner},
		RunE: func(c *cobra.Command, _ []string) error {
			return runMigrateUp(c.Context(), e, &o)
		},
	}
	o.flags(c, asksNever)
	return c
}

func runMigrateUp(ctx context.Context, e *env, o *migrateUpOptions) error {
	return migrating(ctx, e, func(db *database, m *migrate.Migrator) error {
		if o.dryRun {
			return wouldMigrate(ctx, e, db, m, migrations.Latest())
		}
		steps, err := m.Up(ctx)
		if err == nil && len(steps) == 0 {
			have, _, _ := db.SchemaVersion(ctx)
			e.say("schema %q of %s has version %d already%s", e.schema, db.where, have,
				map[bool]string{false: ", the newest", true: ", which is newer than this program and serves it"}[have > migrations.Latest()])
		}
		return errors.Join(printSteps(e, steps), err)
	})
}

// wouldMigrate lists the migrations that lead from the version of the schema to another.
func wouldMigrate(ctx context.Context, e *env, db *database, m *migrate.Migrator, to int64) error {
	have, _, err := db.SchemaVersion(ctx)
	if err != nil {
		return err
	}
	if have > migrations.Latest() {
		if err := db.checkSchema(ctx); err != nil {
			return err
		}
	}
	states, err := m.Status(ctx)
	if err != nil {
		return err
	}
	type view struct {
		Version int64  `json:"version"`
		Name    string `json:"name"`
		Would   string `json:"would"`
		DryRun  bool   `json:"dry_run"`
	}
	t := &term.Table{Columns: []term.Column{{Name: "version", Right: true}, {Name: "migration"}, {Name: "would be"}}}
	var views []view
	for _, s := range states {
		switch {
		case s.AppliedAt.IsZero() && s.Version <= to:
			views = append(views, view{s.Version, s.Name, "applied", true})
		case !s.AppliedAt.IsZero() && s.Version > to:
			views = append([]view{{s.Version, s.Name, "rolled back", true}}, views...)
		}
	}
	for _, v := range views {
		t.Add(fmt.Sprint(v.Version), v.Name, v.Would)
	}
	if len(views) == 0 {
		e.say("schema %q of %s has version %d already", e.schema, db.where, have)
	} else {
		e.say("schema %q of %s has version %d; nothing was changed. Its SQL: sqlq migrate sql --from %d --to %d", e.schema, db.where, have, have, to)
	}
	return printList(e, views, t)
}

// migrateDownOptions are the flags of `sqlq migrate down`.
type migrateDownOptions struct {
	change
	to int64
}

func newMigrateDownCommand(e *env) *cobra.Command {
	var o migrateDownOptions
	c := &cobra.Command{
		Use:   "down",
		Short: "Roll migrations back; messages in the tables they made are lost",
		Long: `Roll the last migration back, or all above the version that --to names; --to 0 removes all of sqlq's tables. Messages in
tables that go are lost. It asks first; off a terminal it needs --yes.`,
		Example:     "  sqlq migrate down --dry-run\n  sqlq migrate down --to 0",
		Args:        noMoreThan(0),
		Annotations: map[string]string{needs: owner},
		RunE: func(c *cobra.Command, _ []string) error {
			return runMigrateDown(c.Context(), e, &o)
		},
	}
	o.flags(c, asksAlways)
	c.Flags().Int64Var(&o.to, "to", -1, "version to go back to; 0: no tables at all (default: one migration back)")
	c.Flag("to").DefValue = ""
	return c
}

func runMigrateDown(ctx context.Context, e *env, o *migrateDownOptions) error {
	if o.to < -1 {
		return usageErrorf("--to %d: it takes a version, or 0 for none", o.to)
	}
	return migrating(ctx, e, func(db *database, m *migrate.Migrator) error {
		have, exists, err := db.SchemaVersion(ctx)
		if err != nil {
			return err
		}
		if !exists {
			e.say("schema %q of %s has no sqlq tables: there is nothing to roll back", e.schema, db.where)
			return printSteps(e, nil)
		}
		if have > migrations.Latest() {
			return db.newer(have)
		}
		target := o.to
		if target == -1 {
			if target, err = previous(ctx, m, have); err != nil {
				return err
			}
		}
		if target >= have {
			return usageErrorf("schema %q has version %d: --to takes a lower one", e.schema, have)
		}
		if o.dryRun {
			return wouldMigrate(ctx, e, db, m, target)
		}
		if err := e.confirm(ctx, o.change, fmt.Sprintf("roll schema %q of %s back from version %d to %d, and remove the messages in the tables that go, for good",
			e.schema, db.where, have, target)); err != nil {
			return err
		}
		steps, err := m.Down(ctx, target)
		return errors.Join(printSteps(e, steps), err)
	})
}

// previous returns the version before one that is applied.
func previous(ctx context.Context, m *migrate.Migrator, version int64) (before int64, err error) {
	states, err := m.Status(ctx)
	for _, s := range states {
		if s.Version < version {
			before = max(before, s.Version)
		}
	}
	return before, err
}

func newMigrateStatusCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "List migrations and whether they are applied",
		Example: "  sqlq migrate status\n  sqlq migrate status -o jsonl",
		Args:    noMoreThan(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return runMigrateStatus(c.Context(), e)
		},
	}
}

func runMigrateStatus(ctx context.Context, e *env) error {
	return migrating(ctx, e, func(db *database, m *migrate.Migrator) error {
		states, err := m.Status(ctx)
		if err != nil {
			return err
		}
		have, _, err := db.SchemaVersion(ctx)
		if err != nil {
			return err
		}
		type view struct {
			Version   int64      `json:"version"`
			Name      string     `json:"name"`
			AppliedAt *time.Time `json:"applied_at"`
		}
		t := &term.Table{Columns: []term.Column{{Name: "version", Right: true}, {Name: "migration"}, {Name: "applied"}}}
		var views []view
		pending := int64(0)
		for _, s := range states {
			v, applied := view{Version: s.Version, Name: s.Name}, "pending"
			if s.AppliedAt.IsZero() {
				pending++
			} else {
				at := s.AppliedAt.UTC()
				v.AppliedAt, applied = &at, e.when(at)
			}
			views = append(views, v)
			t.Add(fmt.Sprint(s.Version), s.Name, applied)
		}
		switch {
		case have > migrations.Latest() && db.checkSchema(ctx) == nil:
			e.say("schema %q of %s has version %d, which is newer than this program and serves it", e.schema, db.where, have)
		case have > migrations.Latest():
			e.say("schema %q of %s has version %d, which is newer than this program; use a newer release of sqlq", e.schema, db.where, have)
		case pending > 0:
			e.say("schema %q of %s: %s pending; apply with: %s", e.schema, db.where, plural(pending, "migration"), migrateUp(e.schema))
		default:
			e.say("schema %q of %s is up to date", e.schema, db.where)
		}
		return printList(e, views, t)
	})
}

// migrateSQLOptions are the flags of `sqlq migrate sql`.
type migrateSQLOptions struct {
	from int64
	to   int64
}

func newMigrateSQLCommand(e *env) *cobra.Command {
	var o migrateSQLOptions
	c := &cobra.Command{
		Use:   "sql",
		Short: "Print the SQL that makes or changes the schema, for a tool of your own",
		Long: `Print the SQL that makes the schema, or with --from brings it from one version to another; with a lower --to back again,
which removes tables with the messages in them. It asks no database. Run it in one transaction: it refuses a schema of
another version than --from. It keeps the record of versions that the library and sqlq migrate read.`,
		Example: "  sqlq migrate sql | psql -1 -v ON_ERROR_STOP=1\n  sqlq migrate sql --from 2 --schema messaging > upgrade.sql",
		Args:    noMoreThan(0),
		RunE: func(*cobra.Command, []string) error {
			return runMigrateSQL(e, &o)
		},
	}
	c.Flags().Int64Var(&o.from, "from", 0, "version that the schema has; 0: none")
	c.Flags().Int64Var(&o.to, "to", migrations.Latest(), "version to bring it to")
	return c
}

func runMigrateSQL(e *env, o *migrateSQLOptions) error {
	script, err := migrate.ScriptBetween(e.schema, o.from, o.to)
	if err != nil {
		return usageErrorf("%w", err)
	}
	if e.format != formatTable {
		return printSQL(e, script, false)
	}
	_, err = io.WriteString(e.out, script)
	return err
}

func newMigrateValidateCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "validate",
		Short: "Compare the schema with what the migrations make",
		Long: `Compare the schema, and each queue in it, with what the migrations up to its version make: tables and their options,
columns, keys, indexes, triggers, policies, sequences, functions with their settings, and what everybody (PUBLIC) may do.
Comments and the privileges of roles are left out. For comparison it makes a second schema in a transaction that it rolls
back, and changes nothing. On a standby, and for a role that may not make schemas, it compares with what it has stored of the
newest version; for an older one it needs the primary and that right. The exit code is 3 when they differ.`,
		Example:     "  sqlq migrate validate\n  sqlq migrate validate -o jsonl | jq .object",
		Args:        noMoreThan(0),
		Annotations: map[string]string{needs: owner},
		RunE: func(c *cobra.Command, _ []string) error {
			return runMigrateValidate(c.Context(), e)
		},
	}
}

func runMigrateValidate(ctx context.Context, e *env) error {
	return migrating(ctx, e, func(db *database, m *migrate.Migrator) error {
		different, err := m.Validate(ctx)
		if errors.Is(err, migrate.ErrNoSchema) || errors.Is(err, migrate.ErrNewerSchema) {
			return cmp.Or(db.checkSchema(ctx), err)
		}
		if err != nil {
			return err
		}
		return printDifferences(e, different, db)
	})
}

func printDifferences(e *env, different []migrate.Difference, db *database) error {
	type view struct {
		Object string `json:"object"`
		Want   string `json:"want"`
		Have   string `json:"have"`
	}
	var views []view
	for _, d := range different {
		views = append(views, view(d))
	}
	if e.format != formatTable {
		if err := printList(e, views, nil); err != nil {
			return err
		}
	}
	for _, d := range different {
		if e.format == formatTable {
			if _, err := fmt.Fprint(e.out, differenceText(d)); err != nil {
				return err
			}
		}
	}
	if len(different) == 0 {
		e.say("schema %q of %s is as the migrations make it", e.schema, db.where)
		return nil
	}
	e.say("schema %q of %s has %s from what the migrations make (- wanted, + there)", e.schema, db.where, plural(int64(len(different)), "difference"))
	return &codedError{code: exitFindings}
}

// differenceText writes a difference as two lines, or one where something is missing or too much.
func differenceText(d migrate.Difference) string {
	text := ""
	if d.Want != "" {
		text += "- " + term.OneLine(d.Want) + "\n"
	}
	if d.Have != "" {
		text += "+ " + term.OneLine(d.Have) + "\n"
	}
	return text
}

// migrating runs f with the database, whatever its schema is like, and a Migrator on it.
func migrating(ctx context.Context, e *env, f func(*database, *migrate.Migrator) error) error {
	db, err := e.connectAnySchema(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	m, err := migrate.New(db.pool.Config().ConnConfig, e.schema)
	if err != nil {
		return err
	}
	return errors.Join(f(db, m), m.Close())
}

func printSteps(e *env, steps []migrate.Step) error {
	type view struct {
		Version int64   `json:"version"`
		Name    string  `json:"name"`
		Seconds float64 `json:"seconds"`
	}
	t := &term.Table{Columns: []term.Column{{Name: "version", Right: true}, {Name: "migration"}, {Name: "took", Right: true}}}
	var views []view
	for _, s := range steps {
		views = append(views, view{s.Version, s.Name, s.Duration.Seconds()})
		t.Add(fmt.Sprint(s.Version), s.Name, s.Duration.Round(time.Millisecond).String())
	}
	return printList(e, views, t)
}
