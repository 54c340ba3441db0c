package ops_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq/ops"
)

func TestArrived(t *testing.T) {
	t.Parallel()
	d := openOdd(t, `odd "schema`)
	for _, queue := range []string{"Sales.and-more", "empty"} {
		if _, err := d.Queues.Create(t.Context(), queue); err != nil {
			t.Fatal(err)
		}
	}
	for want := range int64(3) {
		got, err := d.Queues.Arrived(t.Context())
		if err != nil || !maps.Equal(got, map[string]int64{"Sales.and-more": want, "empty": 0}) {
			t.Fatalf("%v, %v; want %d", got, err, want)
		}
		if _, err := d.Send(t.Context(), "Sales.and-more", ops.Outgoing{Type: "T"}, json.RawMessage(`{}`)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Ready.Purge(t.Context(), "Sales.and-more", ops.Filter{}, ops.PurgeOptions{Delayed: true}); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Queues.Arrived(t.Context()); err != nil || got["Sales.and-more"] != 3 {
		t.Errorf("after a purge: %v, %v", got, err)
	}
}

// Whoever may not read a queue's sequence learns nothing of it, and gets no error.
func TestArrivedForRoles(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	owner := openSchema(t, url, pgtest.Schema) // its pool is closed after what comes below
	for _, queue := range []string{"sales", "billing"} {
		if _, err := owner.Queues.Create(t.Context(), queue); err != nil {
			t.Fatal(err)
		}
	}
	role := "part_of_" + owner.pool.Config().ConnConfig.Database
	name := pgx.Identifier{role}.Sanitize()
	t.Cleanup(func() {
		if _, err := owner.pool.Exec(context.Background(), fmt.Sprintf(`DROP OWNED BY %s; DROP ROLE %[1]s`, name)); err != nil {
			t.Error(err)
		}
	})
	owner.exec(`CREATE ROLE ` + name)
	owner.exec(`GRANT USAGE ON SCHEMA sqlq TO ` + name)
	owner.exec(`GRANT SELECT ON sqlq.queue, sqlq.q_sales, sqlq.q_billing, sqlq.s_sales TO ` + name)
	owner.exec(`GRANT EXECUTE ON FUNCTION sqlq.queue_allows, sqlq.arrived TO ` + name) // row security asks it
	config := owner.pool.Config()
	config.ConnConfig.RuntimeParams["role"] = role
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if got, err := ops.New(pool, pgtest.Schema).Queues.Arrived(t.Context()); err != nil || !maps.Equal(got, map[string]int64{"sales": 0}) {
		t.Errorf("%v, %v", got, err)
	}
}
