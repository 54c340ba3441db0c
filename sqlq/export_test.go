package sqlq

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq/internal/sending"
	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
	"github.com/sqlq/sqlq/sqlq/internal/wakeup"
)

// What is compared with the database, and fuzzed.
var (
	CheckQueueName = checkQueueName
	CheckTypeName  = checkTypeName
	CheckHeader    = checkHeader
	Fingerprint    = fingerprint
	RefuseControl  = func(sql string) error { return readStatement(sql).refused }
)

// CodecTypes returns the media types that a Config with its defaults reads.
func (c Config) CodecTypes() []string { return c.codecs.types }

// OwnHeaders are those that this release writes and reads.
var OwnHeaders = []string{headerContentType, headerCorrelationID, headerConversationID, headerCrashes, headerFirstFailedAt, headerWaited, headerReplays}

// CopyFrom is the number of messages to one queue from which SendMany uses COPY.
const CopyFrom = sending.CopyFrom

// WithStrandedAfter sets how old a lease that its instance does not know must be to be given back.
func WithStrandedAfter(c Config, d time.Duration) Config {
	c.strandedAfter = d
	return c
}

// WithStandbyEvery sets how often an instance on call tries to take the watch and looks whether messages wait.
func WithStandbyEvery(c Config, d time.Duration) Config {
	c.standbyEvery = d
	return c
}

// Low returns below which seq no message of a running endpoint is looked for; -1 when it does not run, or not yet.
func (c *Client) Low(endpoint string) int64 {
	if in := c.running(endpoint); in != nil {
		return in.source.lowest()
	}
	return -1
}

// Awaited returns for how many transactions the raising of low waits; -1 when the endpoint does not run, or not yet.
func (c *Client) Awaited(endpoint string) int {
	in := c.running(endpoint)
	if in == nil {
		return -1
	}
	in.source.mu.Lock()
	defer in.source.mu.Unlock()
	return len(in.source.at.writers)
}

// running returns the instance of an endpoint; nil when it does not run, or not yet.
func (c *Client) running(endpoint string) *instance {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.runner == nil {
		return nil
	}
	for _, in := range c.runner.instances.now() {
		if in.endpoint.Name == endpoint {
			return in
		}
	}
	return nil
}

// LastValue returns the highest number that the sequence of a queue has given out.
func LastValue(t *testing.T, pool *pgxpool.Pool, queue string) int64 {
	t.Helper()
	st, ctx := store.New("sqlq"), context.Background()
	names, err := st.Low.Sequences(ctx, pool, []string{queue})
	if err != nil {
		t.Fatal(err)
	}
	var values []int64
	b := &pgx.Batch{}
	st.Low.LastValues(b, names, &values)
	if err := pool.SendBatch(ctx, b).Close(); err != nil {
		t.Fatal(err)
	}
	return values[0]
}

// FetchPlans returns the plans of what a receive connection runs on a queue: a fetch, one by lease, one at most once, settles
// by seq and by ctid.
func FetchPlans(t *testing.T, pool *pgxpool.Pool, queue string) []string {
	t.Helper()
	ctx := context.Background()
	conn, err := connectorTo(pool).Connect(ctx, session.Receive)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	st, b := store.New("sqlq"), &pgx.Batch{}
	var ms []store.Message
	for _, where := range []store.Where{{Limit: 500}, {After: 100, Limit: 500, From: []int64{1, 50}, To: []int64{10, 50}},
		{After: 100, Limit: 500, UpTo: 900, Leave: store.Leave{Seqs: []int64{7}, Types: []string{"T"}}}} {
		bounds := store.Bounds{Inline: 1000, Total: 1 << 20, Body: 1 << 20}
		st.Ready.Fetch(b, queue, where, 1000, &ms)
		st.Leases.Fetch(b, queue, 1, where, bounds, &ms)
		st.Removed.Fetch(b, queue, where, bounds, &ms)
	}
	st.InHand.Complete(b, store.From{Queue: queue}, []int64{1, 2, 3})
	st.Ready.Complete(b, queue, []pgtype.TID{{OffsetNumber: 1, Valid: true}, {OffsetNumber: 2, Valid: true}})
	var plans []string
	for _, q := range b.QueuedQueries {
		tx, err := conn.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := tx.Query(ctx, "EXPLAIN "+q.SQL, q.Arguments...)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		plans = append(plans, strings.Join(lines, "\n"))
		if err := tx.Rollback(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return plans
}

// Sweeper returns the sweep for expired messages, a piece of each queue a call, as the process that leads does it.
func (c *Client) Sweeper(t testing.TB) (sweep func()) {
	k := (&runner{client: c, outage: session.NewOutage(c.log)}).newKeeper()
	return func() {
		t.Helper()
		if err := k.SweepOnce(t.Context(), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
}

// SweepInTurns is one sweep in turns that may each take no longer than within, as the housekeeping has them.
func (c *Client) SweepInTurns(t testing.TB, within time.Duration) error {
	return (&runner{client: c, outage: session.NewOutage(c.log)}).newKeeper().SweepOnce(t.Context(), within)
}

// Gathered returns how many senders to a queue wait for a commit.
func (c *Client) Gathered(queue string) int { return c.sender.Gathered(queue) }

// RoutesKept returns for how many routes groups of senders are kept.
func (c *Client) RoutesKept() int { return c.sender.RoutesKept() }

func connectorTo(pool *pgxpool.Pool) *session.Connector {
	return &session.Connector{Pool: pool, OfHandler: isOfHandler}
}

// Pooled says whether a receive connection of a Client on the pool finds itself behind a transaction pooler.
func Pooled(t testing.TB, pool *pgxpool.Pool) bool {
	t.Helper()
	conn, err := connectorTo(pool).Connect(t.Context(), session.Receive)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	return conn.Pooled
}

// Fetching says whether a fetch of an endpoint is under way.
func (c *Client) Fetching(endpoint string) bool {
	in := c.running(endpoint)
	return in != nil && in.hand.isFetching()
}

// Defaults of what can be set.
func ConfigDefaults() Config           { return Config{}.withDefaults() }
func EndpointDefaults() Endpoint       { return Endpoint{}.withDefaults() }
func RetryPolicyDefaults() RetryPolicy { return RetryPolicy{}.withDefaults() }

const (
	PollNet  = wakeup.PollNet
	PollDeaf = wakeup.PollDeaf
)

func init() { panicOnIllegalStep = true }

// LifeOf returns a function that counts the timers of a client's Run that have not fired, after its end too.
func (c *Client) LifeOf() (timers func() int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &c.runner.groups[0].life
	return func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.timers)
	}
}

// Handlings returns a function that reports whether an endpoint has a handler for a message type, and one that counts the types for
// which a breaker is kept.
func Handlings(e *Endpoint) (lookup func(messageType string) bool, kept func() int) {
	hs := newHandlings(e)
	return func(messageType string) bool { return hs.of(messageType) != nil }, func() (n int) {
		for range hs.all() {
			n++
		}
		return n
	}
}
