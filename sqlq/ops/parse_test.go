package ops

import "testing"

// The name of a failed message is a number or an id in its usual form, or refused.
func FuzzParseName(f *testing.F) {
	for _, s := range []string{"", "1", "-1", "+1", "9223372036854775808", "0x1", "1e3", "0198c0de-0000-7000-8000-000000000001", "0198C0DE00007000800000000000000A", "{0198c0de-0000-7000-8000-000000000001}",
		"0198c0de-0000-7000-8000-00000000000g", "'; DROP TABLE sqlq.error; --", "\x00", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		seq, id, err := parseName(name)
		if err != nil && (seq != 0 || id != "") || id != "" && (len(id) != 36 || seq != 0) {
			t.Errorf("%q reads as %d, %q, %v", name, seq, id, err)
		}
		if again, err := parseID(id); id != "" && (err != nil || again != id) {
			t.Errorf("%q reads as %q, which reads as %q, %v", name, id, again, err)
		}
	})
}
