package sqlq_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// Row security on a queue's table hides its messages without an error. Run refuses that, and says it when it is switched on
// while it runs; the owner is not concerned.
func TestRowSecurityOnAQueue(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := twoQueues(t, url)
	pool := granted(t, url, "consumer", "mine")
	send := func() {
		t.Helper()
		if err := open(t, admin, sqlq.Config{}).Send(t.Context(), letter{}, sqlq.To("mine")); err != nil {
			t.Fatal(err)
		}
	}
	var said logged
	stop := run(t, open(t, pool, sqlq.Config{Logger: said.logger(), LeaseTime: time.Second}), receiveLetters("mine"))
	send()
	eventuallyCount(t, admin, 0, `SELECT count(*) FROM sqlq.q_mine`)
	execSQL(t, admin, `ALTER TABLE sqlq.q_mine ENABLE ROW LEVEL SECURITY`)
	send()
	eventually(t, "the log says it", func() (bool, string) {
		return strings.Contains(said.all(), "row security hides all messages"), said.all()
	})
	beats(t, admin, "mine")
	stop()
	if n := strings.Count(said.all(), "row security"); n != 1 {
		t.Errorf("it is said %d times:\n%s", n, said.all())
	}
	err := open(t, pool, sqlq.Config{}).Run(t.Context(), receiveLetters("mine"))
	if !errors.Is(err, sqlq.ErrHidden) || !strings.Contains(fmt.Sprint(err), `ALTER TABLE "sqlq"."q_mine" DISABLE`) {
		t.Errorf("Run: %v, want ErrHidden", err)
	}
	// With policies it may be as wanted.
	execSQL(t, admin, `CREATE POLICY all_of_it ON sqlq.q_mine USING (true)`)
	stop = run(t, open(t, pool, sqlq.Config{Logger: said.logger()}), receiveLetters("mine"))
	eventuallyCount(t, admin, 0, `SELECT count(*) FROM sqlq.q_mine`)
	stop()
	if !strings.Contains(said.all(), "its policies") {
		t.Errorf("that there are policies is not said:\n%s", said.all())
	}
	execSQL(t, admin, `DROP POLICY all_of_it ON sqlq.q_mine`)
	send()
	run(t, open(t, admin, sqlq.Config{}), receiveLetters("mine"))
	eventuallyCount(t, admin, 0, `SELECT count(*) FROM sqlq.q_mine`)
}

// Row security on the record of migrations does not look like a schema that is missing.
func TestRowSecurityOnTheRecord(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := twoQueues(t, url)
	pool := granted(t, url, "producer", "mine")
	execSQL(t, admin, `ALTER TABLE sqlq.sqlq_migration ENABLE ROW LEVEL SECURITY`)
	_, err := sqlq.Open(t.Context(), pool, sqlq.Config{})
	if !errors.Is(err, sqlq.ErrPermissionDenied) || !strings.Contains(fmt.Sprint(err), `ALTER TABLE "sqlq"."sqlq_migration" DISABLE`) {
		t.Errorf("Open: %v, want ErrPermissionDenied", err)
	}
	open(t, admin, sqlq.Config{})
}
