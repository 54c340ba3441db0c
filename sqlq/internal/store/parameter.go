package store

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// Go values as parameters of statements, and back.

// smallint returns a number of attempts as the column holds it: at its limit it stays.
func smallint(n int) int16 { return int16(min(n, math.MaxInt16)) }

// duration returns an interval that came in microseconds; nil for null.
func duration(us *int64) *time.Duration {
	if us == nil {
		return nil
	}
	d := time.Duration(max(-mostMicros, min(*us, mostMicros))) * time.Microsecond
	return &d
}

// mostMicros is the most that a time.Duration holds, 292 years, in microseconds: what lies further away is as far as that.
const mostMicros = math.MaxInt64 / 1000

// stamp is a time that is read from a row which anybody may have written. What a time.Time of today's programs cannot do
// anything with (JSON ends with the year 9999) is the last or the first that it can; pgx refuses infinity.
type stamp time.Time

var firstTime, lastTime = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// ScanTimestamptz implements pgtype.TimestamptzScanner.
func (s *stamp) ScanTimestamptz(v pgtype.Timestamptz) error {
	switch {
	case !v.Valid:
		return errors.New("cannot scan null into a time")
	case v.InfinityModifier == pgtype.Infinity || v.InfinityModifier == pgtype.Finite && v.Time.After(lastTime):
		v.Time = lastTime
	case v.InfinityModifier == pgtype.NegativeInfinity || v.Time.Before(firstTime):
		v.Time = firstTime
	}
	*s = stamp(v.Time)
	return nil
}

// micros returns a duration as an SQL parameter, null for none.
func micros(d time.Duration) *int64 {
	if d <= 0 {
		return nil
	}
	us := d.Microseconds()
	return &us
}

// deref returns a text; "" for null.
func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// uuidText writes an id as text, which every driver can pass.
func uuidText(id [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:16])
}

// textOrNil returns JSON as text, null for none.
func textOrNil(b []byte) *string {
	if b == nil {
		return nil
	}
	text := string(b)
	return &text
}

// timeOrNil returns a point in time, null for none.
func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// nonNil returns a list as an array that is empty rather than null.
func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
