package session

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Outage tracks whether a Run can reach the database. An outage is logged once per process when it begins and once when
// it ends, whichever connections notice; and when one connection succeeds, those that wait retry at once.
type Outage struct {
	log  *slog.Logger
	open atomic.Bool // some purpose is lost; frequent callers read it without the lock

	mu    sync.Mutex
	lost  map[Purpose]time.Time // purposes without a connection, and since when; receivers count as connected when one of them is
	since time.Time
	ended time.Time // when the previous outage ended
	said  bool
	news  chan struct{} // closed when a connection works again
}

const (
	// sameOutage is how long after an outage a lost connection still counts as part of it: it may have noticed late. That
	// is logged only if it lasts for longer than quietly.
	sameOutage = 10 * time.Second
	quietly    = time.Second
	// mostBackoff is the longest wait between attempts to reach a database that is away. It is short, because it adds to the
	// time that messages wait, and only a handful of connections of each process make attempts.
	mostBackoff = 500 * time.Millisecond
)

// NewOutage returns an outage that has not begun.
func NewOutage(log *slog.Logger) *Outage {
	return &Outage{log: log, lost: map[Purpose]time.Time{}, news: make(chan struct{})}
}

// Begin notes that a connection was lost or could not be made. It returns false for errors that do not mean that the database is
// out of reach: an answer of the server, or a statement that took too long. Those are for the caller to log.
func (o *Outage) Begin(why Purpose, err error) bool {
	if !Lost(err) || errors.Is(err, ErrDeaf) {
		o.End(why, time.Now())
		return false
	}
	var connecting *pgconn.ConnectError
	if errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &connecting) {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if len(o.lost) == 0 {
		o.since, o.said = now, false
	}
	o.lost[why] = now
	o.open.Store(true)
	if !o.said && (now.Sub(o.ended) > sameOutage || now.Sub(o.since) > quietly) {
		o.said = true
		o.log.Warn("sqlq: lost the database, trying again until it is back", "connection", string(why), "since", o.since, "err", Unreachable(err))
	}
	return true
}

// End notes that a connection works: the database has answered a request made at that time. If a connection for the same purpose
// was lost after the request, the answer does not count. End is called often, and is cheap when no connection was lost.
func (o *Outage) End(why Purpose, asked time.Time) {
	if !o.open.Load() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if lost, is := o.lost[why]; !is || asked.Before(lost) {
		return
	}
	delete(o.lost, why)
	close(o.news)
	o.news = make(chan struct{})
	if len(o.lost) > 0 {
		return
	}
	o.open.Store(false)
	o.ended = time.Now()
	if o.said {
		o.log.Info("sqlq: the database is back", "after", o.ended.Sub(o.since).Round(time.Millisecond), "since", o.since)
	}
}

// Wait waits before the next attempt. It returns earlier if another connection succeeds, or ctx ends.
func (o *Outage) Wait(ctx context.Context, b *Backoff) {
	o.mu.Lock()
	news := o.news
	o.mu.Unlock()
	b.WaitFor(ctx, news, mostBackoff)
}
