package sqlq_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// grant_role can name the event types that a role may subscribe its queues to. Others it cannot read that way.
func TestGrantNamesEvents(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := twoQueues(t, url)
	execSQL(t, admin, `DELETE FROM sqlq.subscription`)
	role, pool := newRole(t, url, "it's ")
	grant := func(queues, events []string) {
		t.Helper()
		execSQL(t, admin, `SELECT sqlq.grant_role($1, 'consumer', $2, events => $3)`, role, queues, events)
	}
	subscribe := func(queue, event, want string) {
		t.Helper()
		if err := do(pool, `INSERT INTO sqlq.subscription (type, queue) VALUES ($1, $2)`, event, queue); sqlStateOf(err) != want {
			t.Errorf("subscribe %s to %s: %v, want %q", queue, event, err, want)
		}
		execSQL(t, admin, `DELETE FROM sqlq.subscription`)
	}
	grant([]string{"mine"}, []string{"post.Sorted"})
	subscribe("mine", "post.Sorted", "")
	subscribe("mine", "post.Posted", "42501")
	subscribe("theirs", "post.Sorted", "42501")
	c := open(t, pool, sqlq.Config{})
	endpoint := sqlq.Endpoint{Name: "mine", Handlers: []sqlq.Handler{sqlq.Handle(func(context.Context, *sqlq.Delivery[posted]) error { return nil })}}
	err := c.Run(t.Context(), endpoint)
	const advice = `'consumer', ARRAY['mine'], events => ARRAY['post.Posted'])`
	if !errors.Is(err, sqlq.ErrPermissionDenied) || !strings.Contains(err.Error(), advice) {
		t.Fatalf("Run: %v, want ErrPermissionDenied and the grant that is missing", err)
	}
	// What the owner has subscribed it to it receives.
	execSQL(t, admin, `INSERT INTO sqlq.subscription (type, queue) VALUES ('post.Posted', 'mine')`)
	run(t, c, endpoint)()
	execSQL(t, admin, `DELETE FROM sqlq.subscription`)

	_, call, _ := strings.Cut(err.Error(), "schema run: ")
	call, _, _ = strings.Cut(call, "): ")
	execSQL(t, admin, call) // the advice, which replaces what it could before
	run(t, c, endpoint)()
	subscribe("mine", "post.Sorted", "42501")
	subscribe("mine", "post.Posted", "")

	grant([]string{"theirs"}, nil) // each queue has its own
	subscribe("theirs", "any.Event", "")
	subscribe("mine", "any.Event", "42501")
	grant(nil, []string{}) // none at all
	subscribe("theirs", "any.Event", "42501")
	subscribe("mine", "post.Posted", "42501")
	grant(nil, nil)
	subscribe("mine", "any.Event", "")
	execSQL(t, admin, `SELECT sqlq.revoke_role($1)`, role)
	if n := count(t, admin, `SELECT count(*) FROM sqlq.subscriber`); n != 0 {
		t.Errorf("%d rows are left of a role that has nothing any more", n)
	}

	// A member of several roles may what one of them may; a role that is gone keeps nobody from it.
	execSQL(t, admin, `INSERT INTO sqlq.subscriber (role, type) VALUES ('nobody at all', 'x')`)
	group, _ := newRole(t, url, "group_")
	execSQL(t, admin, `SELECT sqlq.grant_role($1, 'operator', ARRAY['mine'], events => ARRAY['post.Sorted'])`, group)
	execSQL(t, admin, `GRANT `+pgx.Identifier{group}.Sanitize()+` TO `+pgx.Identifier{role}.Sanitize())
	subscribe("mine", "post.Sorted", "")
	subscribe("mine", "post.Posted", "42501")
	for sql, want := range map[string]string{
		`SELECT sqlq.grant_role($1, 'producer', events => ARRAY['a'])`:      "22023",
		`SELECT sqlq.grant_role($1, 'viewer', events => '{}')`:              "22023",
		`SELECT sqlq.grant_role($1, 'consumer', events => ARRAY['a b'])`:    "22023",
		`SELECT sqlq.grant_role($1, 'consumer', events => ARRAY['a',NULL])`: "22023",
	} {
		if err := do(admin, sql, role); sqlStateOf(err) != want {
			t.Errorf("%s: %v, want %s", sql, err, want)
		}
	}
	refused(t, pool, `INSERT INTO sqlq.subscriber (role) VALUES (current_user)`, `UPDATE sqlq.subscriber SET type = ''`, `DELETE FROM sqlq.subscriber`)
}
