package ops

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// What one transaction of Import stores at most.
const (
	importBatch      = 1000
	importBatchBytes = 8 << 20
)

// maxLine is the longest line that Import takes: the largest body in base64, the headers, and the rest.
const maxLine = MaxBody/3*4 + 4<<20

// maxLeftOut is how many of the lines that it left out Import names.
const maxLeftOut = 1000

// ImportOptions has the options of Import. The zero value has the defaults.
type ImportOptions struct {
	// Continue leaves damaged lines out, instead of ending at the first.
	// Default: off. Cost: the messages of damaged lines are missing.
	Continue bool
	// NewIDs gives each message a new id.
	// Default: off; each keeps its own. Cost: receivers cannot tell that a message came twice.
	NewIDs bool
	// DryRun reads and checks all, and stores nothing.
	// Default: off. Cost: the reading.
	DryRun bool
	// Skip is the number of lines to skip first, to continue where another Import ended.
	// Default: 0. Unit: lines. Cost: they are read, not checked.
	Skip int64
	// Progress is called after each batch.
	// Default: none. Cost: the time of the call.
	Progress func(Progress)
}

// Imported says what Import did.
type Imported struct {
	Ready   int64        `json:"ready_imported"`    // messages that are in the queue now; with DryRun: would be
	Delayed int64        `json:"delayed_imported"`  // likewise among the delayed
	UpTo    int64        `json:"lines_done"`        // all lines up to this were dealt with; for Skip
	LeftOut int64        `json:"left_out"`          // damaged lines, with Continue
	Damaged []*LineError `json:"damaged,omitempty"` // the first 1,000 of them
}

// LineError is a line that Import cannot read.
type LineError struct {
	Line int64 // from 1
	Err  error // what is wrong with it
}

// Error says what happened, where, and what to do about it.
func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// MarshalJSON writes the text of the error.
func (e *LineError) MarshalJSON() ([]byte, error) { return encode(e.Error()) }

// Unwrap returns Err.
func (e *LineError) Unwrap() error { return e.Err }

// Import stores the messages that r has, one a line, as AppendLine writes them, in a queue, in order: those with a due time
// among its delayed messages, the others ready. Lines of failed messages, which have a failed_at, are read too.
//
// It works in batches of up to 1,000 lines, each a transaction that is stored when all its lines have been read and found
// good. The first damaged line is a *LineError and ends it: nothing after the last whole batch, Imported.UpTo, is
// stored. With Continue it is left out, and the first 1,000 of such are in Imported.Damaged. Importing a line twice makes two
// messages with one id.
func (o Ready) Import(ctx context.Context, queue string, r io.Reader, opts ImportOptions) (done Imported, err error) {
	if err := o.mustExist(ctx, queue); err != nil {
		return done, err
	}
	if opts.DryRun {
		return o.importLines(ctx, queue, r, opts, 0)
	}
	id, err := o.begin(ctx, kindImport, struct{}{}, query.Operation{Queue: &queue})
	if err != nil {
		return done, err
	}
	done, err = o.importLines(ctx, queue, r, opts, id)
	return done, errors.Join(err, o.end(ctx, id, err))
}

func (o Ready) importLines(ctx context.Context, queue string, r io.Reader, opts ImportOptions, id int64) (done Imported, err error) {
	in := lines{in: text(r)}
	leaveOut := func(damaged *LineError) error {
		if !opts.Continue {
			return damaged
		}
		if done.LeftOut++; len(done.Damaged) < maxLeftOut {
			done.Damaged = append(done.Damaged, damaged)
		}
		return nil
	}
	for atEnd := false; !atEnd; {
		var batch importing
		for size := 0; len(batch.messages) < importBatch && size < importBatchBytes; {
			line, err := in.next()
			if err == io.EOF {
				atEnd = true
				break
			}
			var m query.Imported
			switch {
			case errors.Is(err, errLineTooLong):
			case err != nil:
				return done, fmt.Errorf("read line %d: %w", in.n+1, err)
			case in.n <= opts.Skip || len(line) == 0:
				continue
			default:
				m, err = parseLine(line)
			}
			if err != nil && in.n > opts.Skip {
				if err := leaveOut(&LineError{in.n, err}); err != nil {
					return done, err
				}
			} else if err == nil {
				if opts.NewIDs {
					m.ID = ""
				}
				size += len(line)
				batch.messages, batch.lines = append(batch.messages, m), append(batch.lines, in.n)
			}
			if err := ctx.Err(); err != nil {
				return done, err
			}
		}
		for id != 0 && len(batch.messages) > 0 {
			err := o.storeBatch(ctx, queue, id, in.n, batch)
			if !strings.HasPrefix(sqlState(err), dataException) {
				if err != nil {
					return done, o.noQueue(ctx, queue, fmt.Errorf("import to queue %q: %w", queue, err))
				}
				break
			}
			i, why := o.refused(ctx, batch, err)
			if err := leaveOut(&LineError{batch.lines[i], why}); err != nil {
				return done, err
			}
			batch.remove(i)
		}
		done.UpTo = max(in.n, opts.Skip)
		for _, m := range batch.messages {
			if m.DueAt != nil {
				done.Delayed++
			} else {
				done.Ready++
			}
		}
		if opts.Progress != nil && len(batch.messages) > 0 {
			opts.Progress(Progress{Operation: id, Kind: kindImport, Done: done.Ready + done.Delayed})
		}
	}
	return done, nil
}

// importing is a batch of Import.
type importing struct {
	messages []query.Imported
	lines    []int64 // on which each stands
}

func (b *importing) remove(i int) {
	b.messages, b.lines = append(b.messages[:i], b.messages[i+1:]...), append(b.lines[:i], b.lines[i+1:]...)
}

// storeBatch stores a batch of Import that ends with a line.
func (o Ready) storeBatch(ctx context.Context, queue string, id, line int64, b importing) error {
	var ready, delayed []query.Imported
	for _, m := range b.messages {
		if m.DueAt != nil {
			delayed = append(delayed, m)
		} else {
			ready = append(ready, m)
		}
	}
	var channel string
	err := o.inOperation(ctx, id, func(tx pgx.Tx, _ query.OperationPlace) (_ int64, after query.Place, err error) {
		if len(ready) > 0 {
			if channel, err = o.store.ImportReady(ctx, tx, queue, ready); err != nil {
				return 0, after, err
			}
		}
		if len(delayed) > 0 {
			if err = o.store.ImportDelayed(ctx, tx, queue, delayed); err != nil {
				return 0, after, err
			}
		}
		return int64(len(b.messages)), query.Place{Seq: line}, nil
	})
	if err != nil {
		return err
	}
	return o.wake(ctx, channel)
}

// refused returns which message of a batch it is that the database does not take, and why: Go's JSON is a little wider than
// PostgreSQL's. Where it cannot be told the first is blamed.
func (o Ready) refused(ctx context.Context, b importing, why error) (int, error) {
	for i, m := range b.messages {
		if m.Headers == nil {
			continue
		}
		if err := o.store.TryHeaders(ctx, o.pool, m.Headers); strings.HasPrefix(sqlState(err), dataException) {
			return i, fmt.Errorf("headers cannot be stored: %w", err)
		}
	}
	return 0, why
}

// lines reads lines of a bounded length.
type lines struct {
	in *bufio.Reader
	n  int64 // of the line read last
}

var errLineTooLong = fmt.Errorf("it has more than %d bytes, more than any message takes", maxLine)

// next returns the next line without the white space around it, io.EOF after the last. A line that is too long is
// read over.
func (l *lines) next() ([]byte, error) {
	var line []byte
	tooLong := false
	for begun := false; ; begun = true {
		part, err := l.in.ReadSlice('\n')
		if !begun && len(part) == 0 && err != nil {
			return nil, err
		}
		if !tooLong {
			line = append(line, part...)
			tooLong = len(line) > maxLine
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if err != nil && err != io.EOF {
			return nil, err
		}
		l.n++
		if tooLong {
			return nil, errLineTooLong
		}
		return bytes.TrimSpace(line), nil
	}
}
