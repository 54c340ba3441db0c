//go:build unix

package devpg

import (
	"testing"
)

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]string{
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)": "15.18",
		"15.18 (Debian 15.18-0+deb12u1)":                       "15.18",
		"postgres (PostgreSQL) 18.0":                           "18.0",
		"postgres (PostgreSQL) 18beta1":                        "18beta1",
		"postgres (PostgreSQL) 19devel":                        "19devel",
		"18.4.0":                                               "18.4.0",
		"postgres (Other) x":                                   "",
		"postgres (PostgreSQL) 15.":                            "",
		"":                                                     "",
	} {
		v, err := parseVersion(text)
		if (err != nil) != (want == "") || err == nil && v.String() != want {
			t.Errorf("parseVersion(%q) = %s, %v; want %q", text, v, err, want)
		}
	}
}
