package ops

import (
	"context"
	"errors"
)

// batchBytes is how many bytes of bodies and headers, as they are stored, one transaction moves or removes, beyond its first
// message.
const batchBytes = 16 << 20

// bound is how much one transaction does at most. One that the server ends because it takes too long (statement_timeout) is
// undone, and the next is smaller: it would never end.
type bound struct {
	rows  int
	bytes int64
	full  int // rows of a whole batch
}

func wholeBatch(rows int) bound { return bound{rows: rows, bytes: batchBytes, full: rows} }

// of scales a number of rows by the part of a whole batch that the bound still allows; at least one row.
func (b bound) of(rows int) int { return max(1, int(int64(rows)*int64(b.rows)/int64(b.full))) }

// shrinkAfter makes the bound smaller after an error that says that a batch took too long, and reports whether it is to be
// tried again. What ends the caller's own context ends the next attempt before it begins.
func (b *bound) shrinkAfter(err error) bool {
	if sqlState(err) != queryCanceled && !errors.Is(err, context.DeadlineExceeded) || b.rows <= 1 {
		return false
	}
	b.rows, b.bytes = max(1, b.rows/4), max(1, b.bytes/4)
	return true
}
