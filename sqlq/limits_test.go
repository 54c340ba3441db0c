package sqlq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// bulk is a command whose body is a blob, not JSON.
type bulk struct{ Blob []byte }

func (*bulk) MessageType() string { return "post.Bulk" }

// bulkTx is its twin for HandleTx.
type bulkTx struct{ bulk }

func (*bulkTx) MessageType() string { return "post.BulkTx" }

// blobs is a codec that takes bodies as they are.
var blobs = sqlq.Codec{ContentType: "application/octet-stream",
	Encode: func(m any) ([]byte, error) {
		if m, ok := m.(*bulkTx); ok {
			return m.Blob, nil
		}
		return m.(*bulk).Blob, nil
	},
	Decode: func(body []byte, into any) error {
		switch into := into.(type) {
		case *bulk:
			into.Blob = body
		case *bulkTx:
			into.Blob = body
		default:
			return fmt.Errorf("into %T", into)
		}
		return nil
	}}

// A body of 100 MiB goes through where MaxBody lets it: sent, delayed, handled in both ways, leased, failed.
func TestLargeBody(t *testing.T) {
	pool := newPool(t) // not parallel: it takes memory
	const size = 100 << 20
	blob := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	routes := map[string]string{"post.Bulk": "bulk", "post.BulkTx": "bulk"}
	execSQL(t, pool, `SELECT sqlq.create_queue('bulk')`)
	if err := open(t, pool, sqlq.Config{Codecs: []sqlq.Codec{blobs}, Routes: routes}).Send(t.Context(), &bulk{blob}); !errors.Is(err, sqlq.ErrBodyTooLarge) || !strings.Contains(err.Error(), "104857600 bytes, the limit is 16777216") {
		t.Fatalf("Send: %v, want ErrBodyTooLarge and both sizes", err)
	}
	c := open(t, pool, sqlq.Config{Codecs: []sqlq.Codec{blobs}, MaxBody: size, Routes: routes, HoldLimit: 10 * time.Millisecond})
	var handled, handledTx atomic.Int64
	check := func(m *bulk) error {
		if !bytes.Equal(m.Blob, blob) {
			return sqlq.Unrecoverable(errors.New("another body"))
		}
		return nil
	}
	stop := run(t, c, sqlq.Endpoint{Name: "bulk", Concurrency: 2, Retry: sqlq.RetryPolicy{Immediate: -1, Delays: []time.Duration{time.Millisecond}}, Handlers: []sqlq.Handler{
		sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[*bulk]) error {
			if handled.Add(1) == 1 { // leased at the hold limit, then tried again
				eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.leased`)
				return errors.Join(check(d.Message), errors.New("again"))
			}
			return check(d.Message)
		}),
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[*bulkTx]) error {
			handledTx.Add(1)
			return check(&d.Message.bulk)
		}),
	}})
	for _, m := range []sqlq.Message{&bulk{blob}, &bulkTx{bulk{blob}}} {
		if err := c.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "handled", func() (bool, string) {
		return handled.Load() == 2 && handledTx.Load() == 1, fmt.Sprint(handled.Load(), handledTx.Load())
	})
	stop()
	eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_bulk) + (SELECT count(*) FROM sqlq.error) + (SELECT count(*) FROM sqlq.leased) + (SELECT count(*) FROM sqlq.delayed)`)
}

// A flood of large bodies does not fill the memory, whether handlers are stuck, or one in many is.
func TestFloodOfLargeBodies(t *testing.T) {
	for _, stuck := range []struct {
		name  string
		every int
	}{{"all handlers stuck", 1}, {"one in twenty stuck", 20}} {
		t.Run(stuck.name, func(t *testing.T) {
			pool := newPool(t)
			const flood, slots = 200, 8
			execSQL(t, pool, `SELECT sqlq.create_queue('bulk')`)
			execSQL(t, pool, `INSERT INTO sqlq.q_bulk (id, type, headers, body)
				SELECT sqlq.uuid_v7(), 'post.Bulk', '{"sqlq-content-type":"application/octet-stream"}', body
				FROM (SELECT decode(repeat('00', 1 << 20), 'hex') AS body OFFSET 0) b, generate_series(1, $1::int)`, flood)
			c := open(t, pool, sqlq.Config{Codecs: []sqlq.Codec{blobs}, HoldLimit: 20 * time.Millisecond})
			before := heap()
			release, began := make(chan struct{}), atomic.Int64{}
			stop := run(t, c, sqlq.Endpoint{Name: "bulk", Concurrency: slots, Handlers: []sqlq.Handler{
				sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[*bulk]) error {
					if began.Add(1)%int64(stuck.every) == 0 {
						<-release
					}
					return nil
				}),
			}})
			eventuallyCount(t, pool, slots, `SELECT count(*) FROM sqlq.leased`) // every slot has one that does not end
			peak := uint64(0)
			for range 50 { // while receivers look for more
				peak = max(peak, heap())
			}
			// What the slots have, and what each connection may have fetched: 4 × 16 MiB.
			if grown, limit := int64(peak-before)>>20, int64(slots+4*16); grown > limit {
				t.Errorf("the heap has grown by %d MiB, want at most %d", grown, limit)
			} else {
				t.Logf("the heap has grown by %d MiB", grown)
			}
			close(release)
			eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_bulk) + (SELECT count(*) FROM sqlq.leased)`)
			stop()
		})
	}
}

// heap is what is in use after a collection, in bytes.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what finalizers and pools let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Headers are bounded, in number and in bytes, by the library and by the SQL functions alike.
func TestHeaderLimits(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	c := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Letter": "post"}})
	many := func(n, size int) (o []sqlq.SendOption, headers map[string]string) {
		headers = map[string]string{}
		for i := range n {
			name := fmt.Sprintf("h%03d", i)
			headers[name] = strings.Repeat("x", size)
			o = append(o, sqlq.WithHeader(name, headers[name]))
		}
		return o, headers
	}
	for _, k := range []struct {
		n, size int
		ok      bool
	}{{100, 0, true}, {101, 0, false}, {1, 65536 - 4, true}, {1, 65536 - 3, false}, {100, 651, true}, {100, 652, false}} {
		o, headers := many(k.n, k.size)
		err := c.Send(t.Context(), letter{}, o...)
		if k.ok && err != nil || !k.ok && (!errors.Is(err, sqlq.ErrHeadersTooLarge) || !strings.Contains(err.Error(), "the limits are 100 and 65536")) {
			t.Errorf("Send with %d headers of %d bytes: %v", k.n, k.size, err)
		}
		if _, err := pool.Exec(t.Context(), `SELECT sqlq.send('post', 'post.Letter', '1', $1)`, headers); k.ok && err != nil || !k.ok && sqlStateOf(err) != "54000" {
			t.Errorf("SQL send with %d headers of %d bytes: %v", k.n, k.size, err)
		}
	}
	// Middleware is bound to them too.
	wordy := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Letter": "post"}, SendMiddleware: []func(sqlq.SendFunc) sqlq.SendFunc{
		func(next sqlq.SendFunc) sqlq.SendFunc {
			return func(ctx context.Context, m *sqlq.Outgoing) error {
				m.Headers["more"] = strings.Repeat("x", 65536)
				return next(ctx, m)
			}
		}}})
	if err := wordy.Send(t.Context(), letter{}); !errors.Is(err, sqlq.ErrHeadersTooLarge) {
		t.Errorf("Send with headers of middleware: %v, want ErrHeadersTooLarge", err)
	}
	for n, want := range map[int]error{1000: nil, 1001: sqlq.ErrInvalidName} {
		if err := c.Send(t.Context(), letter{}, sqlq.WithCorrelationID(strings.Repeat("x", n))); !errors.Is(err, want) {
			t.Errorf("correlation id of %d bytes: %v, want %v", n, err, want)
		}
	}
	codec := blobs
	codec.ContentType = "text/" + strings.Repeat("x", 196)
	if _, err := sqlq.Open(t.Context(), pool, sqlq.Config{Codecs: []sqlq.Codec{codec}}); err == nil || !strings.Contains(err.Error(), "at most 200 bytes") {
		t.Errorf("Open with a content type of 201 bytes: %v", err)
	}
}

// wide is an error whose type and text are large, and deep one that wraps many.
type wide[T any] struct{ text string }

func (w wide[T]) Error() string { return w.text }

// What the error table keeps of an error is bounded: its text, type, chain and stack.
func TestFailureLimits(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	c := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Letter": "post"}})
	var deep func(n int)
	deep = func(n int) {
		if n == 0 {
			panic(strings.Repeat("p", 1<<20))
		}
		deep(n - 1)
	}
	run(t, c, sqlq.Endpoint{Name: "post", Retry: sqlq.RetryPolicy{Immediate: -1, Delays: []time.Duration{time.Millisecond}}, Handlers: []sqlq.Handler{
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error {
			if d.Message.N == 0 {
				deep(5000)
			}
			err := error(wide[map[string]struct {
				AFieldWithALongName, AnotherFieldWithALongName, YetAnotherFieldWithALongName map[string]struct {
					AFieldWithALongName, AnotherFieldWithALongName, YetAnotherFieldWithALongName map[string]map[string]map[string]map[string]map[string]map[string]string
				}
			}]{strings.Repeat("漢\x00", 1<<14)})
			for range 100 {
				err = fmt.Errorf("w: %w", err)
			}
			return err
		}),
	}})
	for n := range 2 {
		if err := c.Send(t.Context(), letter{N: n}); err != nil {
			t.Fatal(err)
		}
	}
	eventuallyCount(t, pool, 2, `SELECT count(*) FROM sqlq.error`)
	if n := count(t, pool, `SELECT count(*) FROM sqlq.error WHERE octet_length(message) BETWEEN 8000 AND 8195 AND octet_length(error_type) <= 503
		AND coalesce(octet_length(stack), 0) <= 32771 AND cardinality(chain) <= 32 AND (SELECT max(octet_length(c)) FROM unnest(chain) c) <= 8195 + 505`); n != 2 {
		t.Errorf("%d failed messages within the limits, want 2", n)
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.error WHERE octet_length(stack) > 1000 AND error_type = 'panic'`); n != 1 {
		t.Errorf("%d with a stack, want 1", n)
	}
}
