package query

import (
	"fmt"
	"time"
)

// Times and intervals that others wrote may be infinite, or too far away to be subtracted, and one row must not make a list
// fail. So what is told of them ends after a century.

// elapsed is an SQL expression: the microseconds from a time until now, negative for one to come, a century at most; null for
// null.
func elapsed(at string) string {
	return fmt.Sprintf(`CASE WHEN %[1]s IS NOT NULL THEN (extract(epoch FROM clock_timestamp()
		- least(greatest(%[1]s, clock_timestamp() - interval '100 years'), clock_timestamp() + interval '100 years')) * 1000000)::bigint END`, at)
}

// lasting is an SQL expression: an interval, from none to a century; null for null.
func lasting(interval string) string {
	return fmt.Sprintf(`CASE WHEN %[1]s IS NOT NULL THEN least(greatest(%[1]s, interval '0'), interval '100 years') END`, interval)
}

// lastingMicros is an SQL expression: an interval in microseconds, from none to a century; null for null.
func lastingMicros(interval string) string {
	return fmt.Sprintf(`(extract(epoch FROM %s) * 1000000)::bigint`, lasting(interval))
}

// The infinite times of the database, as Go's: see ops, which reads and writes them so.
var (
	Infinity         = time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)
	NegativeInfinity = time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC)
)
