package ops_test

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq/ops"
)

var update = flag.Bool("update", false, "write "+grantsFile+" anew from what grant_role does")

const grantsFile = "internal/query/grants.txt"

// role makes a role that may log in and nothing else. It is gone when the test ends.
func (d database) role(name string) string {
	d.t.Helper()
	role := name + "_" + strings.ToLower(rand.Text()[:12])
	quoted := pgx.Identifier{role}.Sanitize()
	d.exec(`CREATE ROLE ` + quoted + ` LOGIN PASSWORD 'secret'`)
	d.t.Cleanup(func() {
		if _, err := d.pool.Exec(context.Background(), `DROP OWNED BY `+quoted+`; DROP ROLE `+quoted, pgx.QueryExecModeSimpleProtocol); err != nil {
			d.t.Error(err)
		}
	})
	return role
}

// loginAs is an Ops on the same database, logged in as a role of the method role.
func (d database) loginAs(role string) *ops.Ops {
	d.t.Helper()
	config := d.pool.Config()
	config.ConnConfig.User, config.ConnConfig.Password = role, "secret"
	pool, err := pgxpool.NewWithConfig(d.t.Context(), config)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(pool.Close)
	return ops.New(pool, "sqlq")
}

// The list of privileges that doctor goes by is what grant_role gives. After a wanted change of grant_role:
//
//	go test ./sqlq/ops -run GrantsFile -update
func TestGrantsFile(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.exec(`SELECT sqlq.create_queue('example')`)
	has := func(kind string, queues []string) []string {
		t.Helper()
		role := d.role(kind)
		if err := d.Roles.Grant(t.Context(), ops.Grant{Role: role, Kind: kind, Queues: queues}); err != nil {
			t.Fatal(err)
		}
		rows, err := d.pool.Query(t.Context(), `
			WITH object (kind, name, acl) AS (
				SELECT 'schema', '-', nspacl FROM pg_namespace WHERE nspname = 'sqlq'
				UNION ALL
				SELECT CASE relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, relname::text, relacl FROM pg_class
				WHERE relnamespace = 'sqlq'::regnamespace AND relkind IN ('r', 'S')
				UNION ALL
				SELECT 'column', c.relname || '.' || a.attname, a.attacl FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
				WHERE c.relnamespace = 'sqlq'::regnamespace AND c.relkind = 'r'
				UNION ALL
				SELECT 'function', proname::text, proacl FROM pg_proc WHERE pronamespace = 'sqlq'::regnamespace
			)
			SELECT a.privilege_type || ' ' || o.kind || ' ' || regexp_replace(o.name, '^([qs])_example', '\1_*')
			FROM object o, aclexplode(o.acl) a WHERE a.grantee = $1::text::regrole
			ORDER BY o.kind COLLATE "C", o.name COLLATE "C", a.privilege_type`, pgx.Identifier{role}.Sanitize())
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return lines
	}
	var b strings.Builder
	for _, kind := range ops.RoleKinds {
		named := has(kind, []string{"example"})
		for _, line := range has(kind, nil) {
			of := "any"
			if !slices.Contains(named, line) {
				of = "all"
			}
			fmt.Fprintf(&b, "%s %s %s\n", kind, of, line)
		}
	}
	if *update {
		if err := os.WriteFile(grantsFile, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(grantsFile)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("grant_role does not do what %s says (-update rewrites it); it does\n%s", grantsFile, &b)
	}
}

func TestGrantAndRevoke(t *testing.T) {
	t.Parallel()
	d, ctx := open(t), t.Context()
	d.exec(`SELECT sqlq.create_queue('mine'), sqlq.create_queue('theirs')`)
	role := d.role(`it's "me"`)
	producer := ops.Grant{Role: role, Kind: "producer", Queues: []string{"mine"}}
	statement, err := d.Roles.GrantSQL(producer)
	if err != nil {
		t.Fatal(err)
	}
	d.exec(statement)
	d.exec(d.Roles.RevokeSQL(role, nil))
	if err := d.Roles.Grant(ctx, producer); err != nil {
		t.Fatal(err)
	}
	may := func(queue string) bool {
		return d.number(`SELECT has_column_privilege($1::text::name, to_regclass('sqlq.q_'||$2::text), 'id', 'INSERT')::int`, role, queue) == 1
	}
	if !may("mine") || may("theirs") {
		t.Error("it is not a producer of its queue alone")
	}
	if err := d.Roles.Revoke(ctx, role, []string{"mine"}); err != nil || may("mine") {
		t.Errorf("after Revoke: %v, %v", may("mine"), err)
	}
	if err := d.Roles.Revoke(ctx, role, nil); err != nil {
		t.Fatal(err)
	}
	if n := d.number(`SELECT has_schema_privilege($1::text::name, 'sqlq', 'USAGE')::int`, role); n != 0 {
		t.Error("it may still use the schema")
	}
	if n := d.number(`SELECT count(*) FROM sqlq.operation WHERE kind IN ('grant', 'revoke') AND status = 'done' AND filter ->> 'role' = $1`, role); n != 3 {
		t.Errorf("%d operations are written down, want 3", n)
	}

	var noRole *ops.NoRoleError
	if err := d.Roles.Grant(ctx, ops.Grant{Role: role + "x", Kind: "viewer"}); !errors.As(err, &noRole) || !slices.Contains(noRole.Near, role) {
		t.Errorf("unknown role: %v, want a NoRoleError with %q", err, role)
	}
	var noQueue *ops.NoQueueError
	if err := d.Roles.Grant(ctx, ops.Grant{Role: role, Kind: "viewer", Queues: []string{"mien"}}); !errors.As(err, &noQueue) {
		t.Errorf("unknown queue: %v, want a NoQueueError", err)
	}
	for _, g := range []ops.Grant{{Kind: "viewer"}, {Role: role, Kind: "king"}, {Role: role, Kind: "producer", Bodies: true}} {
		if err := d.Roles.Grant(ctx, g); err == nil {
			t.Errorf("%+v was granted", g)
		}
	}
	if err := d.loginAs(role).Roles.Grant(ctx, ops.Grant{Role: role, Kind: "operator"}); err == nil || !strings.Contains(err.Error(), "42501") {
		t.Errorf("by somebody who is not the owner: %v", err)
	}
}
