package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/migrations"
)

func newConfigCommand(e *env) *cobra.Command {
	return noun("config", "Show what this command line works with", newConfigShowCommand(e))
}

// setting is a line of `config show`.
type setting struct {
	Name   string `json:"setting"`
	Value  string `json:"value"`
	Source string `json:"source"`
}

// configShowOptions are what `sqlq config show` must know of its command line.
type configShowOptions struct {
	given func(flag string) bool
}

func newConfigShowCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Show which database, schema and role are used, and what says so",
		Long: `Show which database, schema and role are used, and where each setting comes from: a flag, an environment variable, or a
default; and, as far as the database answers, what is there: versions, role, pooler. No password is shown.`,
		Example: "  sqlq config show\n  sqlq config show -o json | jq -r '.[] | select(.setting == \"role\").value'",
		Args:    noMoreThan(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return runConfigShow(c.Context(), e, &configShowOptions{given: func(flag string) bool { return c.Flag(flag).Changed }})
		},
	}
}

func runConfigShow(ctx context.Context, e *env, o *configShowOptions) error {
	config, err := e.config()
	if err != nil {
		return &codedError{code: exitConnect, err: err}
	}
	settings := append(targetOf(e, config.ConnConfig), habitsOf(e, o.given)...)
	there, err := foundThere(ctx, e)
	settings = append(settings, there...)
	t := &term.Table{Columns: []term.Column{{Name: "setting"}, {Name: "value", Cut: true}, {Name: "source"}}}
	for _, s := range settings {
		t.Add(s.Name, s.Value, s.Source)
	}
	if printErr := printList(e, settings, t); printErr != nil {
		return printErr
	}
	return err
}

// targetOf says where the connection goes, and what says so.
func targetOf(e *env, config *pgx.ConnConfig) []setting {
	text, source := e.connString()
	from := func(variable string, keys ...string) string {
		switch {
		case names(text, keys):
			return source
		case os.Getenv("PGSERVICE") != "" || names(text, []string{"service"}):
			return "service file, or " + cmp.Or(present(variable), "default")
		}
		return cmp.Or(present(variable), "default")
	}
	password := "none"
	passwordFrom := from("PGPASSWORD", "password")
	if config.Password != "" {
		password = "set, not shown"
		if passwordFrom == "default" {
			passwordFrom = cmp.Or(present("PGPASSFILE"), "password file")
		}
	}
	hosts := strings.TrimPrefix(whereIs(config), fmt.Sprintf("database %q on ", cmp.Or(config.Database, config.User)))
	return []setting{
		{"host", hosts, from("PGHOST", "host", "hostaddr")},
		{"database", cmp.Or(config.Database, config.User), from("PGDATABASE", "dbname", "database")},
		{"user", config.User, from("PGUSER", "user")},
		{"password", password, passwordFrom},
		{"TLS", tlsText(config), from("PGSSLMODE", "sslmode")},
		{"connect timeout", config.ConnectTimeout.String(), from("PGCONNECT_TIMEOUT", "connect_timeout")},
		{"application name", config.RuntimeParams["application_name"], from("PGAPPNAME", "application_name", "fallback_application_name")},
	}
}

// habitsOf are the settings of the command line itself.
func habitsOf(e *env, given func(flag string) bool) []setting {
	from := func(flag, variable string) string {
		if given(flag) {
			return "--" + flag
		}
		return cmp.Or(present(variable), "default")
	}
	timeout := "none"
	if e.timeout > 0 {
		timeout = e.timeout.String()
	}
	color := string(e.color)
	if e.color == term.ColorAuto {
		color += map[bool]string{true: ": yes", false: ": no"}[e.palette().Colored()]
	}
	return []setting{
		{"schema", e.schema, from("schema", "SQLQ_SCHEMA")},
		{"output", string(e.format), from("output", "")},
		{"timeout", timeout, from("timeout", "")},
		{"color", color, from("color", "NO_COLOR")},
		{"sqlq version", programVersion(), "this program"},
		{"schema version needed", fmt.Sprint(migrations.Latest()), "this program"},
	}
}

// foundThere says what is found in the database.
func foundThere(ctx context.Context, e *env) (settings []setting, err error) {
	db, err := e.connectAnySchema(ctx)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	s, err := db.Session(ctx)
	if err != nil {
		return nil, err
	}
	const here = "the database"
	role := s.Role
	if s.Superuser {
		role += ", a superuser"
	}
	if s.User != s.Role {
		role += fmt.Sprintf(" (logged in as %s)", s.User)
	}
	version, exists, err := db.SchemaVersion(ctx)
	found := fmt.Sprint(version)
	if err != nil {
		found = "this role may not read it"
	} else if !exists {
		found = "none: " + migrateUp(e.schema)
	}
	settings = []setting{
		{"server version", s.Server, here},
		{"role", role, here},
		{"schema version", found, here},
		{"schema owner", cmp.Or(s.Owner, "none"), here},
		{"encrypted", map[bool]string{true: "yes", false: "no"}[s.Encrypted], here},
	}
	pooled, err := db.Pooled(ctx)
	pooler := map[bool]string{true: "a transaction pooler stands in between", false: "none"}[pooled]
	if err != nil {
		pooler = "not known: " + err.Error()
	}
	return append(settings, setting{"pooler", pooler, here}), nil
}

// names says whether a connection string gives one of these settings.
func names(text string, keys []string) bool {
	if u, err := url.Parse(text); err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql") {
		_, password := u.User.Password()
		parameters, _ := url.ParseQuery(u.RawQuery)
		part := map[string]bool{"host": u.Host != "", "dbname": strings.Trim(u.Path, "/") != "", "user": u.User.Username() != "", "password": password}
		for _, key := range keys {
			if part[key] || parameters.Has(key) {
				return true
			}
		}
		return false
	}
	for _, key := range keys {
		if regexp.MustCompile(`(^|\s)` + key + `\s*=`).MatchString(text) {
			return true
		}
	}
	return false
}

// present returns an environment variable as a source; "" where it is not set.
func present(variable string) string {
	if variable == "" || os.Getenv(variable) == "" {
		return ""
	}
	return "$" + variable
}

func tlsText(config *pgx.ConnConfig) string {
	plain := config.TLSConfig == nil
	for _, f := range config.Fallbacks {
		plain = plain || f.TLSConfig == nil
	}
	switch {
	case config.TLSConfig == nil:
		return "no"
	case plain:
		return "where the server offers it"
	case config.TLSConfig.InsecureSkipVerify && config.TLSConfig.VerifyPeerCertificate == nil:
		return "required, certificate not verified"
	}
	return "required, certificate verified"
}
