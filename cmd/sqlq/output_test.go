package main

import (
	"bytes"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/sqlq/sqlq/sqlq/ops"
)

func TestTable(t *testing.T) {
	t.Parallel()
	table := &table{columns: []column{{name: "n", right: true}, {name: "text", cut: true}, {name: "end"}}}
	table.add("1", "short", "e")
	table.add("1000", "äöü is much, much longer\nthan\tthe others", "")
	for width, want := range map[int]string{
		0: "" +
			"   N  TEXT                                      END\n" +
			"   1  short                                     e\n" +
			"1000  äöü is much, much longer than the others\n",
		30: "" +
			"   N  TEXT                 END\n" +
			"   1  short                e\n" +
			"1000  äöü is much, much…\n",
		5: "" + // too narrow for anything: it stays readable
			"   N  TEXT          END\n" +
			"   1  short         e\n" +
			"1000  äöü is much…\n",
	} {
		var out bytes.Buffer
		if err := table.print(&out, width); err != nil || out.String() != want {
			t.Errorf("width %d, err %v: got\n%s\nwant\n%s", width, err, out.String(), want)
		}
	}
}

// Where cutting is not enough spare columns are left out, those first that are worth least; what may be cut shares the room.
func TestTableOnNarrowTerminal(t *testing.T) {
	t.Parallel()
	table := &table{columns: []column{{name: "n", right: true}, {name: "type", cut: true}, {name: "attempts", right: true, spare: 2},
		{name: "error", cut: true}, {name: "group", spare: 1}}}
	table.add("17", "billing.ChargeTheCard", "15", "charge the card: connection refused by the bank", "22a2d762cc497df3")
	for _, c := range []struct {
		width   int
		want    string
		leftOut string
	}{
		{200, "17  billing.ChargeTheCard        15  charge the card: connection refused by the bank  22a2d762cc497df3", ""},
		{80, "17  billing.ChargeTheCard        15  charge the card: connect…  22a2d762cc497df3", ""},
		{60, "17  billing.Char…        15  charge the c…  22a2d762cc497df3", ""},
		{50, "17  billing.Char…  charge the c…  22a2d762cc497df3", "ATTEMPTS"},
		{40, "17  billing.ChargeTh…  charge the card:…", "ATTEMPTS GROUP"},
		{20, "17  billing.Cha…  charge the…", "ATTEMPTS GROUP"},
	} {
		var out bytes.Buffer
		if err := table.print(&out, c.width); err != nil {
			t.Fatal(err)
		}
		_, row, _ := strings.Cut(out.String(), "\n")
		if got, left := strings.TrimSpace(row), strings.Join(table.leftOut, " "); got != c.want || left != c.leftOut {
			t.Errorf("width %d: got\n%s\nwant\n%s\nleft out %q", c.width, got, c.want, left)
		}
	}
}

// What comes from messages must not steer the operator's terminal.
func TestVisible(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"plain äöü 日本 👩‍💻": "plain äöü 日本 👩‍💻",
		"\x1b[31mred":      `\u001b[31mred`,
		"a\u202eb":         `a\u202eb`,
		"c1 \u009b":        `c1 \u009b`,
		"bell\a\r\nline\t": `bell\u0007\u000d` + "\nline\t",
		"bad \xff":         "bad \ufffd",
	} {
		if got := visible(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	if got := oneLine("  a\n\n b\tc\r\n"); got != "a b c" {
		t.Errorf("one line: got %q", got)
	}
}

func TestAge(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0:                "0s",
		59 * time.Second: "59s",
		61 * time.Second: "1m",
		time.Hour:        "1h",
		47 * time.Hour:   "47h",
		50 * time.Hour:   "2d",
	} {
		if got := age(d); got != want {
			t.Errorf("%s: got %s, want %s", d, got, want)
		}
	}
	a := &app{streams: streams{outTerminal: true}}
	if got := a.when(time.Now().Add(-3 * time.Minute)); got != "3m ago" {
		t.Errorf("past: got %q", got)
	}
	if got := a.when(time.Now().Add(3*time.Minute + time.Second)); got != "in 3m" {
		t.Errorf("future: got %q", got)
	}
	if got := a.whenInFull(time.Now().Add(-time.Hour)); !strings.HasSuffix(got, "Z (1h ago)") {
		t.Errorf("in full: got %q", got)
	}
}

func TestCount(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]ops.Count{
		"10000": {N: 10_000},
		"~0":    {N: 0, Estimated: true},
		"~9999": {N: 9999, Estimated: true},
		"~10k":  {N: 10_001, Estimated: true},
		"~1.2M": {N: 1_234_567, Estimated: true},
		"~12M":  {N: 12_345_678, Estimated: true},
	} {
		if got := count(c); got != want {
			t.Errorf("%+v: got %s, want %s", c, got, want)
		}
	}
}

// Colours have no part in the widths, and stand only where there is something to see.
func TestTableInColour(t *testing.T) {
	t.Parallel()
	table := &table{paint: (&app{color: colorAlways}).paint,
		columns: []column{{name: "queue", style: func(string) style { return yellow }}, {name: "failed", right: true, style: some(red)}, {name: "end"}}}
	table.add("a", "0", "x")
	table.add("longer", "12", "")
	var out bytes.Buffer
	if err := table.print(&out, 0); err != nil {
		t.Fatal(err)
	}
	want := "\x1b[1mQUEUE\x1b[0m   \x1b[1mFAILED\x1b[0m  \x1b[1mEND\x1b[0m\n" +
		"\x1b[33ma\x1b[0m            0  x\n" +
		"\x1b[33mlonger\x1b[0m      \x1b[31m12\x1b[0m\n"
	if out.String() != want {
		t.Errorf("got\n%q\nwant\n%q", out.String(), want)
	}
}

// Widths are cells of the terminal: an ideograph and an emoji take two, a combining accent none.
func TestTableCountsCells(t *testing.T) {
	t.Parallel()
	table := &table{columns: []column{{name: "queue"}, {name: "error", cut: true}, {name: "E"}}}
	table.add("a", "日本語のエラー", "x")
	table.add("b", "👩‍💻 e\u0301t\u0301e\u0301", "x")
	table.add("c", "plain and longer", "x")
	for _, width := range []int{0, 23, 22} {
		var out bytes.Buffer
		if err := table.print(&out, width); err != nil {
			t.Fatal(err)
		}
		at := -1
		for line := range strings.Lines(out.String()) {
			if end := ansi.StringWidth(line[:strings.LastIndexAny(line, "xE")]); at >= 0 && at != end {
				t.Errorf("width %d: columns do not stand below each other:\n%s", width, out.String())
			} else {
				at = end
			}
			if got := ansi.StringWidth(strings.TrimSuffix(line, "\n")); width > 0 && got > width {
				t.Errorf("width %d: a line takes %d:\n%s", width, got, out.String())
			}
		}
	}
}

// full is an output that takes nothing, as a full disk does.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// A script must learn that what it wanted written was not.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--help"}, {"help", "queue", "ls"}, {"queue"}, {"version"}, {"--version"}, {"version", "-o", "yaml"}, {"completion", "bash"}, {"man"},
		{"migrate", "sql"}, {"migrate", "sql", "-o", "json"}, {"config", "show"}, {"config", "show", "-o", "jsonl"}} {
		var said bytes.Buffer
		code := run(t.Context(), args, streams{in: strings.NewReader(""), out: full{}, err: &said})
		if code != exitError || !strings.Contains(said.String(), "no space left") {
			t.Errorf("sqlq %s: exit code %d, %s", strings.Join(args, " "), code, said.String())
		}
	}
}
