package ops

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// timelineWithin is how long the statement of Timeline may take. It reads a bounded number of index entries, but under row security
// those of messages that may not be seen, too.
const timelineWithin = 2 * time.Second

// spanLimit is how many messages of a span Timeline counts.
const spanLimit = 1000

// maxSpans is how many spans a timeline has at most.
const maxSpans = 366

// TimelineOptions says which spans Timeline counts. The zero value is the next 24 hours, hour by hour.
type TimelineOptions struct {
	// Span is the length of a span.
	// Default: 1 h; at least 1 s. Cost: none.
	Span time.Duration
	// Spans is the number of spans, from now on.
	// Default: 24; at most 366. Unit: spans. Cost: up to 1,000 index entries each.
	Spans int
}

// DueSpan is a span of time and how many delayed messages become due in it.
type DueSpan struct {
	From     *time.Time // its beginning; nil: all that is overdue
	Until    *time.Time // its end, which is not part of it; nil: all that is due later
	Messages int64      // how many are due in it, at least
	More     bool       // there are more than that: it stopped counting at 1,000
}

// MarshalJSON writes the span with its times in UTC.
func (s DueSpan) MarshalJSON() ([]byte, error) {
	return encode(struct {
		From     *time.Time `json:"from"`
		Until    *time.Time `json:"until"`
		Messages int64      `json:"messages"`
		More     bool       `json:"more"`
	}{optionalTime(s.From), optionalTime(s.Until), s.Messages, s.More})
}

// Timeline says how many delayed messages become due when: first those that are overdue, then those of each span from now on, by the
// clock of the database, and last those that are due later. It counts the messages of all queues that the role may see, because no
// index has those of one.
func (o Delayed) Timeline(ctx context.Context, opts TimelineOptions) ([]DueSpan, error) {
	if opts.Span == 0 {
		opts.Span = time.Hour
	}
	if opts.Spans == 0 {
		opts.Spans = 24
	}
	if opts.Span < time.Second || opts.Spans < 0 || opts.Spans > maxSpans {
		return nil, fmt.Errorf("a timeline has 1 to %d spans of 1 s or more, not %d of %s", maxSpans, opts.Spans, opts.Span)
	}
	var spans []DueSpan
	done, err := o.within(ctx, timelineWithin, func(tx pgx.Tx) error {
		counted, err := o.store.CountDueSpans(ctx, tx, opts.Span, opts.Spans, spanLimit+1)
		spans = make([]DueSpan, len(counted))
		for i, c := range counted {
			spans[i] = dueSpan(c)
		}
		return err
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("count the delayed messages by due time: %w", err)
	case !done:
		return nil, fmt.Errorf("count the delayed messages by due time: it was not done within %s", timelineWithin)
	}
	return spans, nil
}

func dueSpan(c query.DueSpan) DueSpan {
	return DueSpan{From: c.From, Until: c.Until, Messages: min(c.N, spanLimit), More: c.N > spanLimit}
}
