package cli

import (
	"strings"
	"testing"
)

// A header of the command line is cut at its first "=", and nothing of it gets lost.
func FuzzParseHeaders(f *testing.F) {
	for _, s := range []string{"", "a", "a=", "=a", "a=b", "a=b=c", "a==", "a\x00=b", "\xff=\xff", " a = b "} {
		f.Add(s, "x=y")
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		headers, err := parseHeaders([]string{one, two})
		if err != nil {
			if headers != nil {
				t.Errorf("%v, and an error: %v", headers, err)
			}
			return
		}
		for _, given := range []string{one, two} {
			name, value, _ := strings.Cut(given, "=")
			if got, there := headers[name]; !there || got != value {
				t.Errorf("%q reads as %v", given, headers)
			}
		}
		if len(headers) != 2 {
			t.Errorf("%q and %q read as %v", one, two, headers)
		}
	})
}
