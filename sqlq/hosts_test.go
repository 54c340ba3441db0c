package sqlq_test

import (
	"context"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// silentHost is a machine that takes connections and says nothing, until the end of the test.
func silentHost(t *testing.T) (host string, port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes the connections; nobody reads
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	at := l.Addr().(*net.TCPAddr)
	return at.IP.String(), at.Port
}

// When the first host of a URL is cut off, receiving goes on with the second within seconds, also if nobody has set a
// connect_timeout; and that one should be set is said.
func TestFirstHostSilent(t *testing.T) {
	t.Parallel()
	u, err := url.Parse(pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	second, err := pgx.ParseConfig(u.String())
	if err != nil {
		t.Fatal(err)
	}
	host, port := silentHost(t)
	query := u.Query()
	query.Set("host", host+","+second.Host)
	query.Set("port", strconv.Itoa(port)+","+strconv.Itoa(int(second.Port)))
	query.Set("target_session_attrs", "read-write")
	u.Host, u.RawQuery = "", query.Encode()
	config, err := pgxpool.ParseConfig(u.String())
	if err != nil {
		t.Fatal(err)
	}
	// The pool's own connections are the caller's concern. The library's are made from the same settings, without this.
	config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
		c.ConnectTimeout = 500 * time.Millisecond
		return nil
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	var said logged
	c := open(t, pool, sqlq.Config{Logger: said.logger(), ReceiveConnections: 1})
	if !strings.Contains(said.all(), "connect_timeout") {
		t.Errorf("it does not say that connect_timeout is missing: %s", said.all())
	}
	handled := make(chan struct{}, 1)
	endpoint := sqlq.Endpoint{Name: "hosts", Handlers: []sqlq.Handler{
		sqlq.Handle(func(context.Context, *sqlq.Delivery[aftermath]) error {
			handled <- struct{}{}
			return nil
		})}}
	if err := c.Prepare(t.Context(), endpoint); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	run(t, c, endpoint)
	if err := c.Send(t.Context(), aftermath{N: 1}, sqlq.To("hosts")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-handled:
	case <-time.After(time.Minute):
		t.Fatal("nothing was handled")
	}
	// 3 s for the keeper to find the second host, then 3 s for the receivers, and what the pool needs.
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %v until the second host was found", took)
	}
}
