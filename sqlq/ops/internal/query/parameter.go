package query

import (
	"math"
	"time"
)

// Go values as parameters of statements, and back.

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

// deref returns a text; "" for null.
func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
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
