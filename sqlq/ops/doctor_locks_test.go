package ops_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// Doctor names whoever keeps a lock of the library's, as which role soever it looks.
func TestDoctorFindsStrangersLocks(t *testing.T) {
	t.Parallel()
	d, ctx := open(t), t.Context()
	d.exec(`SELECT sqlq.create_queue('sales')`)
	role := d.role("viewer")
	if err := d.Roles.Grant(ctx, ops.Grant{Role: role, Kind: "viewer"}); err != nil {
		t.Fatal(err)
	}
	config := d.pool.Config().ConnConfig.Copy()
	config.RuntimeParams["application_name"] = "forgotten"
	him, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { him.Close(context.Background()) })
	for _, lock := range []string{
		`pg_advisory_lock(1936813169, sqlq.queue_lock_key('sqlq.q_sales'))`,
		`pg_advisory_lock_shared(1936813170, sqlq.queue_lock_key('sqlq.q_sales'))`,
		`pg_advisory_lock(sqlq.queue_lock_key('sqlq.instance'), 0)`,
		`pg_advisory_lock_shared(sqlq.queue_lock_key('sqlq.instance'), 7)`,
		`pg_advisory_lock(1936813169, sqlq.queue_lock_key('sqlq.queue'))`,
		`pg_advisory_lock(1936813169, 1)`, // of another schema, or another program
	} {
		if _, err := him.Exec(ctx, `SELECT `+lock); err != nil {
			t.Fatal(err)
		}
	}
	who, end := fmt.Sprintf(`backend %d (application "forgotten"`, him.PgConn().PID()), fmt.Sprintf("pg_terminate_backend(%d)", him.PgConn().PID())
	for _, diagnosis := range []*ops.Diagnosis{doctor(t, d.Ops, ops.DoctorOptions{}), doctor(t, d.loginAs(role), ops.DoctorOptions{}, "inbox")} {
		for _, lock := range []string{`"sleeper" of queue "sales"`, `"watch" of queue "sales"`, `"leader"`, `"alive" of process 7`, `"queues"`} {
			found(t, diagnosis, "locks", ops.SeverityWarning, who, lock, end)
		}
		for _, c := range diagnosis.Checks {
			if c.Name == "locks" && len(c.Findings) != 5 {
				t.Errorf("%d findings, want 5:\n%s", len(c.Findings), findings(diagnosis))
			}
		}
	}
}
