package sqlq_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/sqlq/sqlq/sqlq"
)

// A sender's header whose name ends like the library's mark of a crash is not taken for it: what a dead process had in hand is
// marked all the same, its attempts are counted, and it is handled with its body and headers.
func TestHeaderNameIsNoMarkOfACrash(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{})
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	crashLately(t, pool, "post")
	const headers = `{"x\"sqlq-crashes":"7",",\"sqlq-crashes":"8"}`
	execSQL(t, pool, `INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, headers, body)
		SELECT max(id), 'post', 1, sqlq.uuid_v7(), now(), 0, 'post.Letter', $1::text::json, '{"N": 7}' FROM sqlq.instance`, headers)
	execSQL(t, pool, `SELECT sqlq.recover_leased(NULL, 10, 1000000)`)
	if n := count(t, pool, `SELECT count(*) FROM sqlq.q_post WHERE headers::text = $1`, headers[:len(headers)-1]+`,"sqlq-crashes":"0"}`); n != 1 {
		t.Fatal("the message is not back in its queue with the mark")
	}
	var handled atomic.Int32
	run(t, c, sqlq.Endpoint{Name: "post", Handlers: []sqlq.Handler{
		sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[letter]) error {
			handled.Add(1)
			if d.Message.N != 7 || d.Headers[`x"sqlq-crashes`] != "7" || d.Headers[`,"sqlq-crashes`] != "8" || d.Headers["sqlq-crashes"] != "0" {
				t.Errorf("message %+v, headers %q", d.Message, d.Headers)
			}
			if n := count(t, pool, `SELECT count(*) FROM sqlq.leased WHERE attempt = 1 AND headers::text LIKE '%,"sqlq-crashes":"1"}'`); n != 1 {
				t.Error("the attempt is not counted in the mark")
			}
			return nil
		}),
	}})
	eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_post) + (SELECT count(*) FROM sqlq.leased) + (SELECT count(*) FROM sqlq.delayed)`)
	if handled.Load() != 1 {
		t.Errorf("handled %d times, want once", handled.Load())
	}
}
