package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/migrations"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

func (a *app) migrateCommand() *cobra.Command {
	return noun("migrate", "Make and change the schema that holds sqlq's tables",
		a.migrateUpCommand(), a.migrateDownCommand(), a.migrateStatusCommand(), a.migrateSQLCommand())
}

func (a *app) migrateUpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "up",
		Short: "Apply the migrations that are pending",
		Long: `Make the schema where it is missing and apply the migrations that are pending, each in a transaction of its own. Several
at once are safe.`,
		Example: "  sqlq migrate up\n  sqlq migrate up --schema messaging",
		Args:    noMoreThan(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.migrating(c.Context(), func(db *database, m *migrate.Migrator) error {
				steps, err := m.Up(c.Context())
				if err == nil && len(steps) == 0 {
					a.say("schema %q of %s has version %d already, the newest", a.schema, db.where, migrations.Latest())
				}
				return errors.Join(a.printSteps(steps), err)
			})
		},
	}
}

func (a *app) migrateDownCommand() *cobra.Command {
	var yes bool
	var to int64
	c := &cobra.Command{
		Use:   "down",
		Short: "Roll migrations back; messages in the tables they made are lost",
		Long: `Roll the last migration back, or all above the version that --to names; --to 0 removes all of sqlq's tables. Messages in
tables that go are lost. It asks first; off a terminal it needs --yes.`,
		Example: "  sqlq migrate down --to 0",
		Args:    noMoreThan(0),
		RunE: func(c *cobra.Command, _ []string) error {
			if to < -1 {
				return usageErrorf("--to %d: it takes a version, or 0 for none", to)
			}
			return a.migrating(c.Context(), func(db *database, m *migrate.Migrator) error {
				have, exists, err := db.SchemaVersion(c.Context())
				if err != nil {
					return err
				}
				if !exists {
					a.say("schema %q of %s has no sqlq tables: there is nothing to roll back", a.schema, db.where)
					return a.printSteps(nil)
				}
				if have > migrations.Latest() {
					return db.checkSchema(c.Context())
				}
				target := to
				if target == -1 {
					if target, err = previous(c.Context(), m, have); err != nil {
						return err
					}
				}
				if target >= have {
					return usageErrorf("schema %q has version %d: --to takes a lower one", a.schema, have)
				}
				if err := a.confirm(c.Context(), change{yes: yes}, fmt.Sprintf("roll schema %q of %s back from version %d to %d, and remove the messages in the tables that go, for good",
					a.schema, db.where, have, target)); err != nil {
					return err
				}
				steps, err := m.Down(c.Context(), target)
				return errors.Join(a.printSteps(steps), err)
			})
		},
	}
	yesFlag(c, &yes)
	c.Flags().Int64Var(&to, "to", -1, "version to go back to; 0: no tables at all (default: one migration back)")
	c.Flag("to").DefValue = ""
	return c
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

func (a *app) migrateStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "List migrations and whether they are applied",
		Example: "  sqlq migrate status",
		Args:    noMoreThan(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.migrating(c.Context(), func(db *database, m *migrate.Migrator) error {
				states, err := m.Status(c.Context())
				if err != nil {
					return err
				}
				have, _, err := db.SchemaVersion(c.Context())
				if err != nil {
					return err
				}
				type view struct {
					Version   int64      `json:"version"`
					Name      string     `json:"name"`
					AppliedAt *time.Time `json:"applied_at"`
				}
				t := &table{columns: []column{{name: "version", right: true}, {name: "migration"}, {name: "applied"}}}
				var views []view
				pending := int64(0)
				for _, s := range states {
					v, applied := view{Version: s.Version, Name: s.Name}, "pending"
					if s.AppliedAt.IsZero() {
						pending++
					} else {
						v.AppliedAt, applied = utc(&s.AppliedAt), a.when(s.AppliedAt)
					}
					views = append(views, v)
					t.add(fmt.Sprint(s.Version), s.Name, applied)
				}
				switch {
				case have > migrations.Latest():
					a.say("schema %q of %s has version %d, which is newer than this program; use a newer release of sqlq", a.schema, db.where, have)
				case pending > 0:
					a.say("schema %q of %s: %s pending; apply with: %s", a.schema, db.where, plural(pending, "migration"), migrateUp(a.schema))
				default:
					a.say("schema %q of %s is up to date", a.schema, db.where)
				}
				return printList(a, views, t)
			})
		},
	}
}

func (a *app) migrateSQLCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "sql",
		Short:   "Print the SQL that makes the schema, for a tool of your own",
		Example: "  sqlq migrate sql | psql -1 -v ON_ERROR_STOP=1",
		Args:    noMoreThan(0),
		RunE: func(*cobra.Command, []string) error {
			script, err := migrate.Script(a.schema)
			if err != nil {
				return err
			}
			_, err = io.WriteString(a.out, script)
			return err
		},
	}
}

// migrating runs f with the database, whatever its schema is like, and a Migrator on it.
func (a *app) migrating(ctx context.Context, f func(*database, *migrate.Migrator) error) error {
	db, err := a.connectAnySchema(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	m, err := migrate.New(db.pool.Config().ConnConfig, a.schema)
	if err != nil {
		return err
	}
	return errors.Join(f(db, m), m.Close())
}

func (a *app) printSteps(steps []migrate.Step) error {
	type view struct {
		Version int64   `json:"version"`
		Name    string  `json:"name"`
		Seconds float64 `json:"seconds"`
	}
	t := &table{columns: []column{{name: "version", right: true}, {name: "migration"}, {name: "took", right: true}}}
	var views []view
	for _, s := range steps {
		views = append(views, view{s.Version, s.Name, s.Duration.Seconds()})
		t.add(fmt.Sprint(s.Version), s.Name, s.Duration.Round(time.Millisecond).String())
	}
	return printList(a, views, t)
}
