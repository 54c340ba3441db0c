package sqlq_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/sqlq/sqlq/sqlq"
)

// An endpoint whose queue must exist creates none. If one is missing nothing at all is created or subscribed, not for the endpoints
// before it either; the error names those that are missing, and what to do.
func TestMustExistCreatesNothing(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{})
	endpoint := func(name string, mustExist bool) sqlq.Endpoint {
		return sqlq.Endpoint{Name: name, MustExist: mustExist, Handlers: []sqlq.Handler{
			sqlq.Handle(func(context.Context, *sqlq.Delivery[posted]) error { return nil })}}
	}
	execSQL(t, pool, `SELECT sqlq.create_queue('there')`)
	all := []sqlq.Endpoint{endpoint("new", false), endpoint("there", true), endpoint("lost", true), endpoint("gone", true)}
	for what, err := range map[string]error{"Run": c.Run(t.Context(), all...), "Prepare": c.Prepare(t.Context(), all...)} {
		if !errors.Is(err, sqlq.ErrNoQueue) || !strings.Contains(err.Error(), `"lost", "gone"`) || !strings.Contains(err.Error(), "sqlq queue create lost gone --schema sqlq") {
			t.Errorf("%s: %v, want ErrNoQueue with the queues and the remedy", what, err)
		}
	}
	if queues, subscriptions := count(t, pool, `SELECT count(*) FROM sqlq.queue`), count(t, pool, `SELECT count(*) FROM sqlq.subscription`); queues != 1 || subscriptions != 0 {
		t.Errorf("%d queues and %d subscriptions, want 1 and none", queues, subscriptions)
	}
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['lost', 'gone']) q`)
	if err := c.Prepare(t.Context(), all...); err != nil {
		t.Errorf("once they are there: %v", err)
	}
	if queues, subscriptions := count(t, pool, `SELECT count(*) FROM sqlq.queue`), count(t, pool, `SELECT count(*) FROM sqlq.subscription`); queues != 4 || subscriptions != 4 {
		t.Errorf("%d queues and %d subscriptions, want 4 of each", queues, subscriptions)
	}
}
