package ops

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// Moment is a point in time. The zero value is none.
type Moment struct {
	At  time.Time     // this time
	Ago time.Duration // instead: so long before now, by the clock of the database; negative: after now
	set bool          // Ago counts, although it may be 0
}

// Ago returns the moment so long before now.
func Ago(d time.Duration) Moment { return Moment{Ago: d, set: true} }

// ParseMoment reads how an operator writes a moment: a duration such as 90m, 2d or 1w, which is so long ago, with a + so
// far ahead; or a date, or a time by RFC 3339, whose T, seconds and zone may be left out.
func ParseMoment(text string) (Moment, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05Z07:00", "2006-01-02T15:04Z07:00", "2006-01-02 15:04Z07:00",
		"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02"} {
		if at, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			if at.Year() < 1970 {
				return Moment{}, &FilterError{Text: text, At: 0, Why: "no message is as old as that"}
			}
			return Moment{At: at}, nil
		}
	}
	rest, ahead := strings.CutPrefix(text, "+")
	ago, at, why := parseDuration(rest)
	if why != "" {
		return Moment{}, &FilterError{Text: text, At: at + len(text) - len(rest), Why: why + "; write a duration such as 90m, 2d or 1h30m, or a time such as 2026-03-01T15:04:05Z"}
	}
	if ahead {
		ago = -ago
	}
	return Ago(ago), nil
}

// ParseDuration reads how an operator writes a duration: 90s, 10m, 1h30m, 2d or 1w. A *FilterError points at what is wrong.
func ParseDuration(text string) (time.Duration, error) {
	d, at, why := parseDuration(text)
	if why != "" {
		return 0, &FilterError{Text: text, At: at, Why: why + "; write a duration such as 90s, 10m, 1h30m or 2d"}
	}
	return d, nil
}

// parseDuration reads a duration with the units of Go and d and w, and says where it goes wrong.
func parseDuration(text string) (d time.Duration, at int, why string) {
	units := map[string]time.Duration{"w": 7 * 24 * time.Hour, "d": 24 * time.Hour, "h": time.Hour, "m": time.Minute, "s": time.Second,
		"ms": time.Millisecond, "us": time.Microsecond, "µs": time.Microsecond, "ns": time.Nanosecond}
	for at < len(text) {
		digits := strings.IndexFunc(text[at:], func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
		if digits <= 0 {
			if digits < 0 {
				return 0, len(text), "a unit is missing"
			}
			return 0, at, "this is no number"
		}
		n, err := strconv.ParseFloat(text[at:at+digits], 64)
		if err != nil {
			return 0, at, "this is no number"
		}
		from := at + digits
		letters := strings.IndexFunc(text[from:], func(r rune) bool { return r == '.' || '0' <= r && r <= '9' })
		if letters < 0 {
			letters = len(text) - from
		}
		unit, known := units[text[from:from+letters]]
		if !known {
			return 0, from, fmt.Sprintf("%q is no unit", text[from:from+letters])
		}
		sum := float64(d) + n*float64(unit)
		if sum > math.MaxInt64/2 {
			return 0, at, "this is too long"
		}
		d, at = time.Duration(sum), from+letters
	}
	if text == "" {
		return 0, 0, "there is nothing"
	}
	return d, 0, ""
}

func (m Moment) stored() query.Moment {
	if m.set || m.Ago != 0 {
		return query.Moment{Ago: &m.Ago}
	}
	return query.Moment{At: m.At}
}

// from returns the moment as an absolute one, given what time it is.
func (m Moment) from(now time.Time) Moment {
	if m.set || m.Ago != 0 {
		return Moment{At: now.Add(-m.Ago)}
	}
	return m
}
