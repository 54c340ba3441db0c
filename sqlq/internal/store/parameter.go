package store

import (
	"fmt"
	"math"
	"time"
)

// Go values as parameters of statements, and back.

// smallint returns a number of attempts as the column holds it: at its limit it stays.
func smallint(n int) int16 { return int16(min(n, math.MaxInt16)) }

// duration returns an interval that came in microseconds; nil for null.
func duration(us *int64) *time.Duration {
	if us == nil {
		return nil
	}
	d := time.Duration(*us) * time.Microsecond
	return &d
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
