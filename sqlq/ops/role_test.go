package ops_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// as returns what a role of a kind can do, which is no superuser and owns nothing.
func (d database) as(kind string, queues ...string) *ops.Ops {
	d.t.Helper()
	role := fmt.Sprintf("%s_of_%s", kind, d.text(`SELECT current_database()`)) // roles are those of the whole server
	d.exec(fmt.Sprintf(`CREATE ROLE %q LOGIN`, role))
	d.t.Cleanup(func() {
		for _, sql := range []string{`DROP OWNED BY %q`, `DROP ROLE %q`} {
			if _, err := d.pool.Exec(context.WithoutCancel(d.t.Context()), fmt.Sprintf(sql, role)); err != nil {
				d.t.Logf("remove role %s: %v", role, err)
			}
		}
	})
	d.exec(`SELECT sqlq.grant_role($1::name, $2::text, $3::text[])`, role, kind, queues)
	config := d.pool.Config().Copy()
	config.ConnConfig.User = role
	pool, err := pgxpool.NewWithConfig(d.t.Context(), config)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(pool.Close)
	return ops.New(pool, "sqlq")
}

// A role that may see one queue of several gets its messages, in order, and those of no other.
func TestFailedOfSomeQueues(t *testing.T) {
	t.Parallel()
	d := many(t)
	d.create("sales", "billing")
	one := d.as("operator", "sales")
	for _, order := range []ops.Order{ops.Newest, ops.Oldest} {
		for _, status := range []ops.Status{"", ops.StatusAny} {
			want, err := d.Failed.List(t.Context(), ops.Filter{Queue: "sales", Order: order, Status: status})
			if err != nil || len(want) == 0 {
				t.Fatalf("%v, err %v", want, err)
			}
			f := ops.Filter{Order: order, Status: status}
			list, err := one.Failed.List(t.Context(), f)
			if err != nil || numbers(list) != numbers(want) {
				t.Errorf("%+v: list %s, err %v, want %s", f, numbers(list), err, numbers(want))
			}
			if n, err := one.Failed.Count(t.Context(), f); err != nil || n.N != int64(len(want)) {
				t.Errorf("%+v: count %v, err %v", f, n, err)
			}
			groups, err := one.Failed.Groups(t.Context(), f)
			for _, g := range groups {
				if fmt.Sprint(g.Queues) != "[sales]" {
					t.Errorf("%+v: group %+v", f, g)
				}
			}
			if err != nil || len(groups) == 0 {
				t.Errorf("%+v: groups %v, err %v", f, groups, err)
			}
		}
	}
	if list, _ := one.Failed.List(t.Context(), ops.Filter{Queue: "billing", Status: ops.StatusAny}); len(list) > 0 {
		t.Errorf("it sees another queue's: %s", numbers(list))
	}
	n := d.number(`SELECT count(*) FROM sqlq.error WHERE queue = 'sales' AND status = 'failed'`)
	if replayed, err := one.Failed.Replay(t.Context(), ops.Filter{All: true}, ops.ReplayOptions{}); err != nil || replayed != n {
		t.Errorf("replayed %d, err %v, want %d", replayed, err, n)
	}
}

// A viewer, who may not read headers and bodies, lists, counts and groups; an operator besides reads all, and edits.
func TestFailedByRole(t *testing.T) {
	t.Parallel()
	d := many(t)
	viewer, operator := d.as("viewer"), d.as("operator")
	for _, o := range []*ops.Ops{viewer, operator} {
		for _, f := range []ops.Filter{{}, {Status: ops.StatusAny, Order: ops.Oldest}, {Error: "/refused/", Type: "Odd", Since: at(t, "2026-01-01")}, {Names: []string{"1"}}} {
			want, err := d.Failed.List(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			list, err := o.Failed.List(t.Context(), f)
			if err != nil || numbers(list) != numbers(want) {
				t.Errorf("%+v: list %s, err %v", f, numbers(list), err)
			}
			if n, err := o.Failed.Count(t.Context(), f); err != nil || n.N != int64(len(want)) {
				t.Errorf("%+v: count %v, err %v", f, n, err)
			}
			f.Order = ""
			if _, err := o.Failed.Groups(t.Context(), f); err != nil {
				t.Errorf("%+v: groups: %v", f, err)
			}
		}
	}
	if _, err := viewer.Failed.List(t.Context(), ops.Filter{Body: "$.amount"}); err == nil {
		t.Error("a viewer looks into bodies")
	}
	if _, err := viewer.Failed.Show(t.Context(), "1"); err == nil {
		t.Error("a viewer sees a body")
	}
	if list, err := operator.Failed.List(t.Context(), ops.Filter{Body: "$.amount", Headers: map[string]string{"tenant": "north"}}); err != nil || len(list) != 4 {
		t.Errorf("an operator looks into bodies: %v, err %v", numbers(list), err)
	}
	m, err := operator.Failed.Show(t.Context(), "5")
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := operator.Failed.Edit(t.Context(), m, ops.Edit{Headers: map[string]string{"a": "b"}, Body: []byte(`{}`)}); err != nil || !changed {
		t.Errorf("an operator edits: %v, err %v", changed, err)
	}
	if history, err := operator.History(t.Context(), m.ID); err != nil || len(history) != 1 || string(history[0].Body) == "" {
		t.Errorf("history %v, err %v", history, err)
	}
}

// A viewer changes nothing, and leaves no trace of having tried.
func TestViewerIsRefused(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 3)
	role := "ops_viewer_" + d.text(`SELECT current_database()`)
	d.exec(fmt.Sprintf(`CREATE ROLE %s`, role))
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if _, err := d.pool.Exec(ctx, fmt.Sprintf(`DROP OWNED BY %[1]s; DROP ROLE %[1]s`, role)); err != nil {
			t.Error(err)
		}
	})
	d.exec(`SELECT sqlq.grant_role($1, 'viewer')`, role)
	config := d.pool.Config()
	config.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, `SET ROLE `+role)
		return err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	viewer, all := ops.New(pool, "sqlq"), ops.Filter{All: true}
	for name, err := range map[string]error{
		"replay": second(viewer.Failed.Replay(t.Context(), all, ops.ReplayOptions{})), "archive": second(viewer.Failed.Archive(t.Context(), all, ops.ChangeOptions{})),
		"delete": second(viewer.Failed.Delete(t.Context(), all, ops.ChangeOptions{})),
	} {
		if err == nil || !strings.Contains(err.Error(), "permission denied for table operation") {
			t.Errorf("%s: err %v", name, err)
		}
	}
	if v, err := viewer.Failed.PreviewReplay(t.Context(), all, ops.ReplayOptions{}); err != nil || v.Messages.N != 3 {
		t.Errorf("a preview: %+v, err %v", v, err)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.error`); n != 3 || d.number(`SELECT count(*) FROM sqlq.operation`) != 0 {
		t.Errorf("%d messages are left, want 3", n)
	}
	if _, err := viewer.Operations.List(t.Context(), ops.OperationFilter{}); err != nil {
		t.Errorf("operations: err %v", err)
	}
}

func second(_ int64, err error) error { return err }
