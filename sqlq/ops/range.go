package ops

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// Range is a span of whole numbers, both ends included; nil: no end. The zero value is every number.
type Range struct {
	Min, Max *int // bounds, included; nil: none
}

// ParseRange reads how an operator writes a range: 3, 3.., ..5, 3..5, >2, >=3, <5 or <=4.
func ParseRange(text string) (Range, error) {
	number := func(from, to int) (*int, error) {
		n, err := strconv.Atoi(text[from:to])
		switch {
		case errors.Is(err, strconv.ErrRange) || err == nil && (n > math.MaxInt32 || n < math.MinInt32):
			return nil, &FilterError{Text: text, At: from, Why: "the number is too large"}
		case err != nil:
			return nil, &FilterError{Text: text, At: from, Why: "a whole number is missing; write 3, 3.., ..5, 3..5, >2 or <=4"}
		}
		return &n, nil
	}
	for _, sign := range []struct {
		text     string
		min, max bool
		step     int
	}{{">=", true, false, 0}, {"<=", false, true, 0}, {">", true, false, 1}, {"<", false, true, -1}} {
		if !strings.HasPrefix(text, sign.text) {
			continue
		}
		n, err := number(len(sign.text), len(text))
		if err != nil {
			return Range{}, err
		}
		*n += sign.step
		if sign.min {
			return Range{Min: n}, nil
		}
		return Range{Max: n}, nil
	}
	dots := strings.Index(text, "..")
	if dots < 0 {
		n, err := number(0, len(text))
		return Range{n, n}, err
	}
	var r Range
	var err error
	if dots > 0 {
		if r.Min, err = number(0, dots); err != nil {
			return Range{}, err
		}
	}
	if dots+2 < len(text) || dots == 0 {
		if r.Max, err = number(dots+2, len(text)); err != nil {
			return Range{}, err
		}
	}
	if r.Min != nil && r.Max != nil && *r.Min > *r.Max {
		return Range{}, &FilterError{Text: text, At: dots + 2, Why: "the range ends before it begins"}
	}
	return r, nil
}
