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

// Outage is what a Run knows of the database being out of reach. It has the log say that once for the process, and once that
// it is over, whichever of its connections find out, and lets those that wait try again when one has succeeded.
type Outage struct {
	log  *slog.Logger
	open atomic.Bool // some purpose is lost; read without the lock by what happens often

	mu    sync.Mutex
	lost  map[Purpose]time.Time // what has no connection, and since when; receivers have one as soon as one of them has
	since time.Time
	ended time.Time // of the one before
	said  bool
	news  chan struct{} // closed when a connection works again
}

const (
	// sameOutage is how soon after an outage a connection that is lost belongs to it: it may have found out late. Only if that
	// lasts for longer than quietly is it said.
	sameOutage = 10 * time.Second
	quietly    = time.Second
	// mostBackoff is the longest wait between attempts to reach a database that is away: short, because what waits for it
	// waits that much longer. Attempts are made by a handful of connections of each process.
	mostBackoff = 500 * time.Millisecond
)

// NewOutage returns an outage that has not begun.
func NewOutage(log *slog.Logger) *Outage {
	return &Outage{log: log, lost: map[Purpose]time.Time{}, news: make(chan struct{})}
}

// Begin notes that a connection was lost or could not be made. It returns false for what is no sign that the database is
// out of reach: an answer of the server, or a statement that took too long. The caller says that.
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

// End notes that a connection works: the database has answered what was asked at that time. If it was asked before another
// connection for the same purpose was lost, that says nothing. It is called often, and costs nothing when none was lost.
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

// Wait lets a moment pass before the next attempt: less, if another connection succeeds meanwhile, or ctx ends.
func (o *Outage) Wait(ctx context.Context, b *Backoff) {
	o.mu.Lock()
	news := o.news
	o.mu.Unlock()
	b.WaitFor(ctx, news, mostBackoff)
}
