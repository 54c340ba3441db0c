package ops

// batchBytes is how many bytes of bodies and headers, as they are stored, one transaction moves or removes, beyond its first
// message.
const batchBytes = 16 << 20

// bound is how much one transaction does at most. One that the server ends because it takes too long (statement_timeout) is
// undone, and the next is smaller: it would never end.
type bound struct {
	rows  int
	bytes int64
}

func wholeBatch(rows int) bound { return bound{rows: rows, bytes: batchBytes} }

// shrinkAfter makes the bound smaller after an error that says that a batch took too long, and reports whether it is to be
// tried again.
func (b *bound) shrinkAfter(err error) bool {
	if sqlState(err) != queryCanceled || b.rows <= 1 {
		return false
	}
	b.rows, b.bytes = max(1, b.rows/4), max(1, b.bytes/4)
	return true
}
