package sqlqtest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/sqlqtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// A small shop: sales takes orders and announces them, billing charges for them.

type placeOrder struct {
	Order int
	Total string
}

type orderPlaced struct {
	Order int
	Total string
}

type charge struct{ Order int }

func (placeOrder) MessageType() string  { return "sales.PlaceOrder" }
func (orderPlaced) MessageType() string { return "sales.OrderPlaced" }
func (orderPlaced) IsEvent()            {}
func (*charge) MessageType() string     { return "billing.Charge" }

var errBroken = errors.New("no total")

// sales refuses orders without a total, after publishing the event.
func sales() sqlq.Endpoint {
	return sqlq.Endpoint{Name: "sales", Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(_ context.Context, _ pgx.Tx, d *sqlq.Delivery[placeOrder]) error {
			if err := d.Publish(orderPlaced(d.Message)); err != nil {
				return err
			}
			if d.Message.Total == "" {
				return fmt.Errorf("order %d: %w", d.Message.Order, errBroken)
			}
			return nil
		}),
	}}
}

// billing sends itself a command for each event, and records which orders it has charged.
func billing(charged *sync.Map) sqlq.Endpoint {
	return sqlq.Endpoint{Name: "billing", Handlers: []sqlq.Handler{
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[orderPlaced]) error {
			return d.Send(&charge{d.Message.Order})
		}),
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[*charge]) error {
			charged.Store(d.Message.Order, true)
			return nil
		}),
	}}
}

// isGone reports whether a database does not exist.
func isGone(url string) bool {
	conn, err := pgx.Connect(context.Background(), url)
	if err == nil {
		conn.Close(context.Background())
	}
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "3D000"
}

// A test's database is removed with it, whether it passes or fails and whatever it leaves behind; the Client is closed.
func TestCleanup(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"passes", "fails", "leaves a transaction open", "leaves the client running"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			var h *sqlqtest.Harness
			var ran sync.WaitGroup
			said := fake(t, func(ft sqlqtest.TB) {
				h = sqlqtest.Open(ft, sqlq.Config{}, sales())
				h.Send(ft, placeOrder{1, "1 EUR"})
				switch end {
				case "fails":
					ft.Errorf("as it should")
					ft.FailNow()
				case "leaves a transaction open":
					conn, err := pgx.Connect(t.Context(), h.URL)
					if err == nil {
						_, err = conn.Exec(t.Context(), `BEGIN; LOCK TABLE sqlq.q_sales`)
					}
					if err != nil {
						t.Error(err)
					}
				case "leaves the client running":
					began := make(chan struct{})
					ran.Go(func() {
						close(began)
						if err := h.Client.Run(context.Background(), sales()); err != nil && !errors.Is(err, sqlq.ErrClosed) {
							t.Error(err)
						}
					})
					<-began
				}
			})
			if want := map[bool]string{true: "as it should\n"}[end == "fails"]; said != want {
				t.Errorf("it said %q, want %q", said, want)
			}
			ran.Wait()
			if !isGone(h.URL) {
				t.Error("the database is still there")
			}
			if err := h.Client.Send(context.Background(), placeOrder{}); !errors.Is(err, sqlq.ErrClosed) {
				t.Errorf("send after the end: %v, want ErrClosed", err)
			}
		})
	}
}

// A connection that was not released is reported, and nothing else goes wrong.
func TestConnectionNotGivenBack(t *testing.T) {
	t.Parallel()
	var h *sqlqtest.Harness
	var conn *pgxpool.Conn
	says(t, fake(t, func(ft sqlqtest.TB) {
		h = sqlqtest.Open(ft, sqlq.Config{}, sales())
		var err error
		if conn, err = h.Pool.Acquire(t.Context()); err != nil {
			t.Error(err)
		}
	}), "connections of Harness.Pool that were not released: 1; end every transaction")
	if !isGone(h.URL) {
		t.Error("the database is still there")
	}
	conn.Release()
}

// Concurrent tests do not see each other.
func TestIsolation(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 6; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			var charged sync.Map
			h := sqlqtest.Open(t, sqlq.Config{}, sales(), billing(&charged))
			for order := range n {
				h.Send(t, placeOrder{order, "1 EUR"})
			}
			if got, want := h.Drain(t), (sqlqtest.Drained{Handled: 3 * n}); got != want {
				t.Errorf("drained %+v, want %+v", got, want)
			}
			if got := len(sqlqtest.Published[orderPlaced](t, h)); got != n {
				t.Errorf("%d events published, want %d", got, n)
			}
		})
	}
}

func TestSchemaOfAnotherName(t *testing.T) {
	t.Parallel()
	h := sqlqtest.Open(t, sqlq.Config{Schema: `mess"ages`}, sales())
	h.Send(t, placeOrder{1, "1 EUR"}, sqlq.ExpiresIn(1e15), sqlq.Delay(1e12))
	h.Advance(t, 1e12)
	h.Drain(t)
	sqlqtest.ExpectPublished(t, h, orderPlaced{1, "1 EUR"})
	sqlqtest.ExpectNoneFailed(t, h)
}

func TestDatabase(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(t.Context(), sqlqtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	c, err := sqlq.Open(t.Context(), pool, sqlq.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Prepare(t.Context(), sales()); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(t.Context(), placeOrder{1, "1 EUR"}); err != nil {
		t.Fatal(err)
	}
}

// If Open fails, it ends the test with the reason.
func TestOpenRefused(t *testing.T) {
	t.Parallel()
	says(t, fake(t, func(t sqlqtest.TB) { sqlqtest.Open(t, sqlq.Config{BatchLimit: -1}) }), "BatchLimit is -1")
	says(t, fake(t, func(t sqlqtest.TB) { sqlqtest.Open(t, sqlq.Config{}, sqlq.Endpoint{Name: "empty"}) }), `"empty": no handler`)
	says(t, fake(t, func(t sqlqtest.TB) {
		h := sqlqtest.Open(t, sqlq.Config{})
		h.Send(t, placeOrder{})
	}), "no route")
	says(t, fake(t, func(t sqlqtest.TB) {
		h := sqlqtest.Open(t, sqlq.Config{})
		h.Drain(t)
	}), "no endpoint to drain; pass endpoints to Open")
	says(t, fake(t, func(t sqlqtest.TB) {
		h := sqlqtest.Open(t, sqlq.Config{}, sales())
		h.Drain(t, "salse")
	}), `not given an endpoint "salse", only ["sales"]`)
}

// On a machine without a server the failure says what helps.
func TestNoServer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ variable, want string }{
		{"SQLQ_POSTGRES_BIN=/nonexistent", "; or set SQLQ_TEST_DATABASE_URL to the URL of a server of yours, whose role may create databases"},
		{"SQLQ_TEST_DATABASE_URL=postgres://guest@127.0.0.1:1/none", "start that server, or unset the variable for a throw-away one"},
		{"SQLQ_TEST_DATABASE_URL=postgres://:::", "SQLQ_TEST_DATABASE_URL: cannot parse"},
	} {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDatabase$")
		child.Env = append(os.Environ(), "SQLQ_TEST_DATABASE_URL=", "SQLQ_TEST_POSTGRES=", c.variable)
		said, err := child.CombinedOutput()
		if err == nil || !strings.Contains(string(said), c.want) {
			t.Errorf("with %s: %v\n%s\nwant %q", c.variable, err, said, c.want)
		}
	}
}

func BenchmarkDatabase(b *testing.B) {
	sqlqtest.Database(b) // the server and the template
	for b.Loop() {
		sqlqtest.Database(b)
	}
}

func BenchmarkOpenAndDrain(b *testing.B) {
	sqlqtest.Database(b)
	for b.Loop() {
		h := sqlqtest.Open(b, sqlq.Config{}, sales())
		h.Send(b, placeOrder{17, "1 EUR"})
		h.Drain(b)
	}
}
