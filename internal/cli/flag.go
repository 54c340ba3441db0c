package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// duration is a flag for a duration, with a sign where it may have one.
type duration struct {
	*time.Duration
	signed bool
}

func (s duration) String() string {
	if s.Duration == nil || *s.Duration == 0 {
		return ""
	}
	return s.Duration.String()
}

func (s duration) Type() string { return "DURATION" }
func (s duration) Set(text string) error {
	rest, sign := text, time.Duration(1)
	if s.signed {
		if r, minus := strings.CutPrefix(text, "-"); minus {
			rest, sign = r, -1
		} else {
			rest = strings.TrimPrefix(text, "+")
		}
	}
	if rest == "0" { // needs no unit
		*s.Duration = 0
		return nil
	}
	d, err := ops.ParseDuration(rest)
	*s.Duration = sign * d
	return pointAt(err)
}

// instant is a flag for a point in time.
type instant struct{ *time.Time }

func (i instant) String() string { return "" }
func (i instant) Type() string   { return "TIME" }
func (i instant) Set(text string) error {
	m, err := ops.ParseMoment(text)
	if err != nil || m.At.IsZero() {
		return errors.New("write a date or a time such as 2026-03-01, 2026-03-01T15:04 or 2026-03-01T15:04:05Z")
	}
	*i.Time = m.At
	return nil
}

// shortestWatch keeps a list from being asked for without a pause.
const shortestWatch = 100 * time.Millisecond

// interval is the time between two rounds; a flag.
type interval time.Duration

func (i *interval) String() string { return "" }
func (i *interval) Type() string   { return "TIME" }

func (i *interval) Set(text string) error {
	m, err := ops.ParseMoment(text)
	switch {
	case err != nil:
		return pointAt(err)
	case !m.At.IsZero() || m.Ago < shortestWatch:
		return fmt.Errorf("write a time of %s or more, such as 2s", shortestWatch)
	}
	*i = interval(m.Ago)
	return nil
}

// rate is a flag: so many a second.
type rate struct{ *float64 }

func (r rate) String() string { return "" }
func (r rate) Type() string   { return "N/s" }
func (r rate) Set(text string) error {
	number := strings.TrimSuffix(text, "/s")
	var n int
	if _, err := fmt.Sscanf(number+"\n", "%d\n", &n); err != nil || n < 1 || fmt.Sprint(n) != number {
		return errors.New("write a whole number a second, such as 100/s")
	}
	*r.float64 = float64(n)
	return nil
}

// size is a number of bytes; a flag.
type size int64

func (s *size) String() string {
	n := int64(*s)
	for i, unit := range []string{"GB", "MB", "kB"} {
		if each := int64(1) << (30 - 10*i); n > 0 && n%each == 0 {
			return fmt.Sprintf("%d%s", n/each, unit)
		}
	}
	return fmt.Sprint(n)
}
func (s *size) Type() string { return "SIZE" }

func (s *size) Set(text string) error {
	each, number := int64(1), strings.ToLower(text)
	for suffix, n := range map[string]int64{"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30} {
		if rest, found := strings.CutSuffix(number, suffix); found {
			each, number = n, strings.TrimSpace(rest)
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 || n > (1<<62)/each {
		return errors.New("write a size such as 64MB or 2GB")
	}
	*s = size(n * each)
	return nil
}
