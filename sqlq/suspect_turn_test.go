package sqlq_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// Messages that may have killed a process run one after the other. A receiver that waits for the turn of a HandleTx
// message settles meanwhile: the message that has its turn is over only when it is settled, and there may be no other
// receiver to do that. (The torture test found a process whose receivers all waited for one another, for ever.)
func TestSuspectsOnOneConnection(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{ReceiveConnections: 1})
	execSimple(t, pool, `SELECT sqlq.create_queue('held'), sqlq.create_queue('exact');
		INSERT INTO sqlq.q_held (id, sent_at, type, headers, body) SELECT gen_random_uuid(), now() - interval '1 s', 'crash.Peril', '{"sqlq-crashes": "1"}', '{}' FROM generate_series(1, 2);
		INSERT INTO sqlq.q_exact (id, sent_at, type, headers, body) SELECT gen_random_uuid(), now() - interval '1 s', 'crash.PerilTx', '{"sqlq-crashes": "1"}', '{}' FROM generate_series(1, 2);`)
	fetched := make(chan struct{}) // from the other queue, if there is still something
	run(t, c,
		sqlq.Endpoint{Name: "held", Handlers: []sqlq.Handler{sqlq.Handle(func(context.Context, *sqlq.Delivery[peril]) error {
			<-fetched
			return nil
		})}},
		sqlq.Endpoint{Name: "exact", Handlers: []sqlq.Handler{sqlq.HandleTx(func(context.Context, pgx.Tx, *sqlq.Delivery[perilTx]) error { return nil })}})
	eventuallyCount(t, pool, 1, `SELECT (EXISTS (SELECT FROM sqlq.leased WHERE queue = 'exact') OR NOT EXISTS (SELECT FROM sqlq.q_exact))::int`)
	close(fetched)
	eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_held) + (SELECT count(*) FROM sqlq.q_exact) + (SELECT count(*) FROM sqlq.leased) + (SELECT count(*) FROM sqlq.error)`)
}
