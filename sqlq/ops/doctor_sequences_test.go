package ops_test

import (
	"testing"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// After a restore of the data alone sequences are behind their rows: doctor names them, and sets them.
func TestDoctorSetsSequences(t *testing.T) {
	t.Parallel()
	d, ctx := open(t), t.Context()
	d.exec(`SELECT sqlq.create_queue(q) FROM unnest(ARRAY['sales', 'fresh', 'empty']) q`)
	d.exec(`SELECT sqlq.send('sales', 'T', '1') FROM generate_series(1, 5)`)
	d.exec(`SELECT sqlq.send('empty', 'T', '1')`)
	d.exec(`DELETE FROM sqlq.q_empty`)
	d.exec(`INSERT INTO sqlq.error (id, queue, endpoint, host, type, body, attempts, sent_at, first_failed_at, error_type, message, fingerprint)
		SELECT gen_random_uuid(), 'sales', 'sales', '', 'T', '1', 1, now(), now(), 'E', 'm', 'f' FROM generate_series(1, 3)`)
	diagnosis := doctor(t, d.Ops, ops.DoctorOptions{})
	for _, c := range diagnosis.Checks {
		if c.Name == "sequences" && len(c.Findings) > 0 {
			t.Fatalf("before: %+v", c.Findings)
		}
	}
	d.exec(`SELECT setval('sqlq.s_sales', 2), setval('sqlq.error_seq_seq', 1, false)`)
	viewer := d.role("viewer")
	if err := d.Roles.Grant(ctx, ops.Grant{Role: viewer, Kind: "viewer"}); err != nil {
		t.Fatal(err)
	}
	found(t, doctor(t, d.loginAs(viewer), ops.DoctorOptions{}, "inbox"), "sequences", ops.SeverityProblem, `queue "sales"`)
	diagnosis = doctor(t, d.Ops, ops.DoctorOptions{})
	found(t, diagnosis, "sequences", ops.SeverityProblem, `the numbers of queue "sales" go up to 5, and its sequence has given out 2`, `setval('"sqlq"."s_sales"', (SELECT max(seq) FROM "sqlq"."q_sales"))`)
	found(t, diagnosis, "sequences", ops.SeverityProblem, `the numbers of table error go up to 3, and its sequence has given out 0`)
	if err := d.Doctor.Fix(ctx, diagnosis); err != nil {
		t.Fatal(err)
	}
	d.exec(`SELECT sqlq.send('sales', 'T', '1')`)
	if n := d.number(`SELECT max(seq) FROM sqlq.q_sales`); n != 6 {
		t.Errorf("the next message has number %d, want 6", n)
	}
	if n := doctor(t, d.Ops, ops.DoctorOptions{}).Count(ops.SeverityProblem); n > 0 {
		t.Errorf("%d problems are left", n)
	}
}

// Row security that somebody else switches on hides messages from those who handle them.
func TestDoctorFindsRowSecurityOfQueues(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.exec(`SELECT sqlq.create_queue(q) FROM unnest(ARRAY['sales', 'audit']) q`)
	d.exec(`ALTER TABLE sqlq.q_sales ENABLE ROW LEVEL SECURITY`)
	d.exec(`ALTER TABLE sqlq.sqlq_migration ENABLE ROW LEVEL SECURITY`)
	d.exec(`ALTER TABLE sqlq.q_audit ENABLE ROW LEVEL SECURITY`)
	d.exec(`CREATE POLICY platform ON sqlq.q_audit USING (false)`)
	diagnosis := doctor(t, d.Ops, ops.DoctorOptions{})
	for _, name := range []string{`queue "sales"`, `queue "audit"`, `table sqlq_migration`} {
		found(t, diagnosis, "row security", ops.SeverityProblem, "row security of "+name+" is on", "DISABLE ROW LEVEL SECURITY")
	}
	d.exec(`ALTER TABLE sqlq.q_audit DISABLE ROW LEVEL SECURITY`)
	d.exec(`ALTER TABLE sqlq.q_sales DISABLE ROW LEVEL SECURITY`)
	d.exec(`ALTER TABLE sqlq.sqlq_migration DISABLE ROW LEVEL SECURITY`)
	if n := doctor(t, d.Ops, ops.DoctorOptions{}).Count(ops.SeverityProblem); n > 0 {
		t.Errorf("%d problems are left", n)
	}
}
