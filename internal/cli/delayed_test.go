package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

// On a terminal a command that changes delayed messages shows some of them and asks, and lists say in how long they are
// due.
func TestDelayedOnATerminal(t *testing.T) {
	t.Parallel()
	url := "--database-url=" + pgtest.Database(t)
	must := func(answer string, want int, args ...string) (out, err string) {
		t.Helper()
		code, out, err := command(t, answer, append([]string{url}, args...)...)
		if code != want {
			t.Fatalf("%v: exit code %d, want %d: %s", args, code, want, err)
		}
		return out, err
	}
	must("", 0, "queue", "create", "sales")
	for range 7 {
		must("", 0, "send", "sales", "sales.Remind", `{"order":17}`, "--delay", "90m")
	}
	if out, _ := must("-", 0, "delayed", "ls"); strings.Count(out, "  in 1h  sales  sales.Remind  delay") != 7 {
		t.Errorf("ls: %s", out)
	}
	_, err := must("n\n", 1, "delayed", "cancel", "--queue", "sales")
	if strings.Count(err, "due in 1h  sales  sales.Remind") != 5 || !strings.Contains(err, "This will cancel 7 delayed messages") ||
		!strings.Contains(err, ", for good.") || !strings.Contains(err, "nothing was done") {
		t.Errorf("cancel, and no: %s", err)
	}
	_, err = must("n\n", 1, "delayed", "reschedule", "--queue", "sales", "--by", "+1h")
	if !strings.Contains(err, "This will reschedule 7 delayed messages") || strings.Contains(err, "for good") {
		t.Errorf("reschedule, and no: %s", err)
	}
	if _, err = must("y\n", 0, "delayed", "now", "1", "2"); !strings.Contains(err, "made due 2 messages") {
		t.Errorf("now: %s", err)
	}
	if out, _ := must("-", 0, "delayed", "show", "1"); !strings.Contains(out, "s ago)") {
		t.Errorf("show: %s", out)
	}
	if _, err = must("y\n", 0, "delayed", "cancel", "--queue", "sales"); !strings.Contains(err, "cancelled 7 messages") {
		t.Errorf("cancel, and yes: %s", err)
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"90s": 90 * time.Second, "1h30m": 90 * time.Minute, "2d": 48 * time.Hour} {
		for sign, want := range map[string]time.Duration{"": want, "+": want, "-": -want} {
			var d time.Duration
			if err := (duration{&d, true}).Set(sign + text); err != nil || d != want {
				t.Errorf("%s%s: %s, err %v", sign, text, d, err)
			}
			if err := (duration{&d, false}).Set(sign + text); (err == nil) != (sign == "") {
				t.Errorf("%s%s without a sign: err %v", sign, text, err)
			}
		}
	}
}
