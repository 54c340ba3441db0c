package ops_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sqlq/sqlq/migrations"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// A schema that was renamed has functions that still look into the old one: doctor says so, and fixes it.
func TestDoctorFindsARenamedSchema(t *testing.T) {
	t.Parallel()
	const name = `New "name"`
	d := openOdd(t, "old name")
	if _, err := d.pool.Exec(t.Context(), `ALTER SCHEMA "old name" RENAME TO "New ""name"""`); err != nil {
		t.Fatal(err)
	}
	renamed := ops.New(d.pool, name)
	strayed := func() (found []ops.Finding) {
		diagnosis, err := renamed.Doctor.Examine(t.Context(), ops.DoctorOptions{WantVersion: migrations.Latest(), Within: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		declared(t, diagnosis)
		for _, c := range diagnosis.Checks {
			for _, f := range c.Findings {
				if c.Name == "migrations" {
					found = append(found, f)
				}
			}
		}
		if len(found) > 0 {
			if err := renamed.Doctor.Fix(t.Context(), diagnosis); err != nil {
				t.Error(err)
			}
		}
		return found
	}
	if _, err := renamed.Queues.Create(t.Context(), "sales"); err == nil {
		t.Fatal("its functions work")
	}
	found := strayed()
	if len(found) != 1 || found[0].Severity != ops.SeverityProblem || !strings.Contains(found[0].What, "old name") || !found[0].Fixable {
		t.Errorf("found %+v", found)
	}
	if found := strayed(); len(found) > 0 {
		t.Errorf("fixed, and still found %+v", found)
	}
	if _, err := renamed.Queues.Create(t.Context(), "sales"); err != nil {
		t.Error(err)
	}
}
