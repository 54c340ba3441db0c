package ops

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// Cursor is a place in a list, after which the next page begins. It is opaque text that can be part of a URL. It is valid for the list
// and the order that it came from, also when the message that it points at is gone.
type Cursor string

// Page is a part of a list.
type Page[T any] struct {
	Items  []T    // in the order of the list
	Looked int64  // rows that were looked at for it
	Next   Cursor // where the next page begins, for PageOptions.After; "": this was the last
	Cut    bool   // the time ran out before the page was full: Next continues the search
}

// PageOptions select a page. The zero value selects the first one.
type PageOptions struct {
	// After is where the page begins: Page.Next of the one before, with the same filter.
	// Default: the beginning. Unit: a cursor. Cost: none.
	After Cursor
	// Budget is the time for a search that no index serves. When it is used up, the page has what was found so far, and Next continues
	// the search.
	// Default: 2 s. Cost: the database reads for up to that time.
	Budget time.Duration
	// Whole fills in Headers and Body of ready messages. A role that may not read those gets pages without them; failed and delayed
	// messages have them in Show alone.
	// Default: off. Cost: all of their bytes are read; bodies of more than 8 MB together make the page shorter.
	Whole bool
}

// pageSize is how many items a page has whose filter has no limit.
const pageSize = 50

// leastTime is how long a statement may take at least: one that is always cut off would never get on.
const leastTime = 250 * time.Millisecond

// paging is a page that is being looked for.
type paging struct {
	until time.Time
	size  int // items wanted
	look  int // rows to look at in one statement
	most  int // the maximum of look
}

func newPaging(f Filter, opts PageOptions, most int) paging {
	p := paging{size: f.pageSize(), look: most, most: most}
	budget := opts.Budget
	if budget <= 0 {
		budget = 2 * time.Second
	}
	p.until = time.Now().Add(budget)
	if !f.ChoosesAll() {
		p.look = min(most, 2000) // how long they take is not known yet
	}
	return p
}

// within runs a look in the time that is left; false: it was not done in it, and is to be tried with fewer messages, or the time
// is over.
func (p *paging) within(ctx context.Context, o *core, look func(tx pgx.Tx) error) (done bool, err error) {
	began := time.Now()
	done, err = o.within(ctx, max(leastTime, time.Until(p.until)), look)
	switch took := time.Since(began); {
	case err != nil:
	case !done:
		p.look = max(1, p.look/10)
	case took < time.Until(p.until)/4:
		p.look = min(p.most, 2*p.look)
	}
	return done, err
}

func (p *paging) over() bool { return !time.Now().Before(p.until) }

// wholePage returns the page of a list that was read up to one item more than it has room for.
func wholePage[T any](items []T, f Filter, place func(T) Cursor) Page[T] {
	page := Page[T]{Items: items, Looked: int64(len(items))}
	if size := f.pageSize(); len(items) > size {
		page.Items = items[:size]
		page.Next = place(items[size-1])
	}
	return page
}

// pageSize is how many items a page has.
func (f Filter) pageSize() int {
	if f.Limit > 0 {
		return f.Limit
	}
	return pageSize
}

// cursor writes a place in a list. kind says in which list and order.
func cursor(kind byte, at time.Time, seq int64) Cursor {
	return Cursor(base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%c%d.%d.%d", kind, at.Unix(), at.Nanosecond(), seq)))
}

// namedCursor writes a place in a list that is in the order of names and numbers.
func namedCursor(kind byte, name string, number int64) Cursor {
	return Cursor(base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%c%d.%s", kind, number, name)))
}

// readNamed returns the place that a cursor of namedCursor says.
func (c Cursor) readNamed(kind byte) (name string, number int64, err error) {
	text, err := base64.RawURLEncoding.DecodeString(string(c))
	if err == nil && len(text) > 0 && text[0] == kind && utf8.Valid(text) && bytes.IndexByte(text, 0) < 0 {
		digits, name, found := strings.Cut(string(text[1:]), ".")
		if number, err = strconv.ParseInt(digits, 10, 64); found && err == nil {
			return name, number, nil
		}
	}
	return "", 0, c.wrong()
}

// read returns the place that a cursor says.
func (c Cursor) read(kind byte) (at time.Time, seq int64, err error) {
	text, err := base64.RawURLEncoding.DecodeString(string(c))
	var seconds, nanos int64
	if err == nil && len(text) > 0 && text[0] == kind {
		var n int
		n, err = fmt.Sscanf(string(text[1:])+"\n", "%d.%d.%d\n", &seconds, &nanos, &seq)
		if err == nil && n == 3 && nanos >= 0 && nanos < 1e9 {
			return time.Unix(seconds, nanos).UTC(), seq, nil
		}
	}
	return at, 0, c.wrong()
}

func (c Cursor) wrong() error {
	return &FilterError{Field: "cursor", Text: string(c), Why: "it is none of this list and order: begin again without it"}
}

// inOrder returns the kind of a cursor: upper case where the oldest are first.
func inOrder(kind byte, oldest bool) byte {
	if oldest {
		return kind - 'a' + 'A'
	}
	return kind
}

// Page returns a page of the failed messages that a filter chooses, in its order, the newest first unless it says otherwise: the
// first Limit of them, default 50, behind opts.After. Messages that fail or are deleted between two pages do not shift the
// others.
func (o Failed) Page(ctx context.Context, f Filter, opts PageOptions) (page Page[FailedMessage], err error) {
	chosen, err := o.choose(ctx, f)
	if err != nil {
		return page, err
	}
	scan := query.FailedScan{Oldest: f.Order == Oldest}
	kind := inOrder('f', scan.Oldest)
	if opts.After != "" {
		at, seq, err := opts.After.read(kind)
		if err != nil {
			return page, err
		}
		scan.After = &query.FailedKey{FailedAt: at, Seq: seq}
	}
	p := newPaging(f, opts, lookAtOnce)
	for {
		scan.Look, scan.Limit = p.look, p.size+1-len(page.Items)
		var chunk query.FailedChunk
		done, err := p.within(ctx, o.core, func(tx pgx.Tx) (err error) {
			chunk, err = o.store.NextFailed(ctx, tx, chosen, scan)
			return err
		})
		if err != nil {
			return page, fmt.Errorf("read failed messages: %w", err)
		}
		if done {
			page.Looked += int64(chunk.Looked)
			for _, m := range chunk.Failed {
				if len(page.Items) == p.size {
					last := page.Items[p.size-1]
					page.Next = cursor(kind, last.FailedAt, last.Number)
					return page, nil
				}
				page.Items = append(page.Items, failedMessage(m))
			}
			if scan.After = chunk.Next; scan.After == nil {
				break
			}
		}
		if p.over() {
			if page.Cut = true; scan.After != nil {
				page.Next = cursor(kind, scan.After.FailedAt, scan.After.Seq)
			} else {
				page.Next = cursor(kind, beginning(scan.Oldest), 0)
			}
			return page, nil
		}
	}
	if len(page.Items) == 0 && opts.After == "" {
		return page, o.checkQueue(ctx, f.Queue)
	}
	return page, nil
}

// beginning is a place before every message of an order.
func beginning(oldest bool) time.Time {
	if oldest {
		return query.NegativeInfinity
	}
	return query.Infinity
}

// Page returns a page of the delayed messages that a filter chooses, in its order, the earliest due time first unless it says
// otherwise: the first Limit of them, default 50, behind opts.After.
func (o Delayed) Page(ctx context.Context, f Filter, opts PageOptions) (page Page[DelayedMessage], err error) {
	chosen, err := o.delayedFilter(ctx, f)
	if err != nil {
		return page, err
	}
	stretch := query.DelayedStretch{Newest: f.Order == Newest}
	kind := inOrder('d', !stretch.Newest)
	if opts.After != "" {
		at, seq, err := opts.After.read(kind)
		if err != nil {
			return page, err
		}
		stretch.From = &query.DelayedKey{DueAt: at, Seq: seq}
	}
	p := newPaging(f, opts, delayedChunk)
	for {
		look, limit := max(p.look, 2), p.size+1-len(page.Items)
		var rows []query.DelayedRow
		var next *query.DelayedKey
		done, err := p.within(ctx, o.core, func(tx pgx.Tx) (err error) {
			rows, next, err = o.store.ListDelayed(ctx, tx, stretch, chosen, look, min(limit, look))
			return err
		})
		if err != nil {
			return page, fmt.Errorf("list delayed messages: %w", err)
		}
		if done {
			page.Looked += int64(look)
			for _, row := range rows {
				if len(page.Items) == p.size {
					last := page.Items[p.size-1]
					page.Next = cursor(kind, last.DueAt, last.Number)
					return page, nil
				}
				page.Items = append(page.Items, delayedMessage(row))
			}
			if stretch.From = next; next == nil {
				break
			}
		}
		if p.over() {
			if page.Cut = true; stretch.From != nil {
				page.Next = cursor(kind, stretch.From.DueAt, stretch.From.Seq)
			} else {
				page.Next = cursor(kind, beginning(!stretch.Newest), 0)
			}
			return page, nil
		}
	}
	if len(page.Items) == 0 && opts.After == "" {
		return page, o.checkQueue(ctx, f.Queue)
	}
	return page, nil
}

// Page returns a page of the ready messages of a queue that a filter chooses, in its order, the oldest first unless it says
// otherwise: the first Limit of them, default 50, behind opts.After, without taking them. They have no Headers and Body, unless
// opts.Whole asks for them.
func (o Ready) Page(ctx context.Context, queue string, f Filter, opts PageOptions) (page Page[Message], err error) {
	failed := func(err error) error { return o.noQueue(ctx, queue, fmt.Errorf("look into queue %q: %w", queue, err)) }
	chosen, err := o.chooseReady(ctx, f)
	if err != nil {
		return page, err
	}
	span, err := o.span(ctx, queue, chosen)
	if err != nil {
		return page, failed(err)
	}
	span.Bytes, span.Descending, span.Bare = readBytes, f.Order == Newest, !opts.Whole
	kind := inOrder('r', !span.Descending)
	if opts.After != "" {
		_, seq, err := opts.After.read(kind)
		switch {
		case err != nil:
			return page, err
		case span.Descending:
			span.UpTo = min(span.UpTo, seq-1)
		default:
			span.After = max(span.After, seq)
		}
	}
	p := newPaging(f, opts, lookRows)
	for {
		span.Look, span.Want = p.look, p.size+1-len(page.Items)
		var messages []query.Peeked
		var at query.Looked
		done, err := p.within(ctx, o.core, func(tx pgx.Tx) (err error) {
			messages, at, err = o.store.ReadReady(ctx, tx, queue, chosen, span)
			return err
		})
		if err != nil {
			return page, failed(err)
		}
		if done {
			page.Looked += at.Rows
			size := 0 // of bodies: none without them
			for _, m := range messages {
				if len(page.Items) == p.size {
					page.Next = cursor(kind, time.Time{}, page.Items[p.size-1].Seq)
					return page, nil
				}
				size += len(m.Body)
				page.Items = append(page.Items, message(m))
			}
			last := at.Last
			full := size >= span.Bytes && len(messages) > 0
			if full {
				last = messages[len(messages)-1].Seq
			}
			if at.Rows < int64(span.Look) && !full {
				return page, nil
			}
			if span.Descending {
				span.UpTo = last - 1
			} else {
				span.After = last
			}
			if full {
				page.Next = cursor(kind, time.Time{}, last)
				return page, nil
			}
		}
		if p.over() {
			page.Cut = true
			if span.Descending {
				page.Next = cursor(kind, time.Time{}, span.UpTo+1)
			} else {
				page.Next = cursor(kind, time.Time{}, span.After)
			}
			return page, nil
		}
	}
}
