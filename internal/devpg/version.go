package devpg

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// version is a version of PostgreSQL, such as 15.18, 18beta1 (major 18, rest "beta1") or 19devel.
type version struct {
	major, minor int
	rest         string
}

// minMajor is the oldest major version that sqlq runs on.
const minMajor = 14

// parseVersion reads what `postgres --version` prints, or the version that the server reports:
// "postgres (PostgreSQL) 15.18 (Debian 15.18-0)" and "15.18 (Debian 15.18-0)" are both 15.18.
func parseVersion(text string) (version, error) {
	if _, after, ok := strings.Cut(text, "(PostgreSQL)"); ok {
		text = after
	}
	fields := strings.Fields(text)
	if len(fields) == 0 {
		return version{}, errors.New("it does not print its version")
	}
	word := fields[0]
	digits := func(s string) (int, string, bool) {
		end := 0
		for end < len(s) && s[end] >= '0' && s[end] <= '9' {
			end++
		}
		n, err := strconv.Atoi(s[:end])
		return n, s[end:], err == nil
	}
	major, rest, ok := digits(word)
	if !ok {
		return version{}, fmt.Errorf("%q is not a version of PostgreSQL", word)
	}
	v := version{major: major, rest: rest}
	if after, ok := strings.CutPrefix(rest, "."); ok {
		if v.minor, v.rest, ok = digits(after); !ok {
			return version{}, fmt.Errorf("%q is not a version of PostgreSQL", word)
		}
	}
	return v, nil
}

func (v version) String() string {
	if v.minor == 0 && v.rest != "" {
		return strconv.Itoa(v.major) + v.rest // 18beta1
	}
	return fmt.Sprintf("%d.%d%s", v.major, v.minor, v.rest)
}

// newer reports whether v is a later version than w. A beta counts as its release.
func (v version) newer(w version) bool {
	if v.major != w.major {
		return v.major > w.major
	}
	return v.minor > w.minor
}

// checkMajor returns an error if the version cannot be used where major (0: any) is wanted. The error continues a text that ends
// in "… is": "PostgreSQL 13.2, older than 14".
func (v version) checkMajor(major int) error {
	switch {
	case v.major < minMajor:
		return fmt.Errorf("PostgreSQL %s, older than %d", v, minMajor)
	case major != 0 && v.major != major:
		return fmt.Errorf("PostgreSQL %s, not %d", v, major)
	}
	return nil
}
