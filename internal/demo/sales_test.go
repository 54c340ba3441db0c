package demo

import (
	"errors"
	"testing"
)

func TestTheBugInSales(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		shown string
		bug   bool
	}{
		{"123.45 EUR", false},
		{"0.00 SEK", false},
		{"12345 JPY", true},
		{"12.345 KWD", true},
	} {
		currency := tt.shown[len(tt.shown)-3:]
		if err := (sales{decimals: rightDecimals}).checkShown(currency, tt.shown); err != nil {
			t.Errorf("%s: %v", tt.shown, err)
		}
		err := (sales{decimals: alwaysTwoDecimals}).checkShown(currency, tt.shown)
		var wrong *AmountError
		if errors.As(err, &wrong) != tt.bug {
			t.Errorf("%s: with the bug: %v", tt.shown, err)
		}
	}
}
