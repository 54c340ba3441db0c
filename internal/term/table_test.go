package term_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/sqlq/sqlq/internal/term"
)

func TestTable(t *testing.T) {
	t.Parallel()
	table := &term.Table{Columns: []term.Column{{Name: "n", Right: true}, {Name: "text", Cut: true}, {Name: "end"}}}
	table.Add("1", "short", "e")
	table.Add("1000", "äöü is much, much longer\nthan\tthe others", "")
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
		if err := table.Print(&out, width); err != nil || out.String() != want {
			t.Errorf("width %d, err %v: got\n%s\nwant\n%s", width, err, out.String(), want)
		}
	}
}

// Where cutting is not enough spare columns are left out, those first that are worth least; what may be cut shares the room.
func TestTableOnNarrowTerminal(t *testing.T) {
	t.Parallel()
	table := &term.Table{Columns: []term.Column{{Name: "n", Right: true}, {Name: "type", Cut: true}, {Name: "attempts", Right: true, Spare: 2},
		{Name: "error", Cut: true}, {Name: "group", Spare: 1}}}
	table.Add("17", "billing.ChargeTheCard", "15", "charge the card: connection refused by the bank", "22a2d762cc497df3")
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
		if err := table.Print(&out, c.width); err != nil {
			t.Fatal(err)
		}
		_, row, _ := strings.Cut(out.String(), "\n")
		if got, left := strings.TrimSpace(row), strings.Join(table.LeftOut, " "); got != c.want || left != c.leftOut {
			t.Errorf("width %d: got\n%s\nwant\n%s\nleft out %q", c.width, got, c.want, left)
		}
	}
}

// Colours have no part in the widths, and stand only where there is something to see.
func TestTableInColour(t *testing.T) {
	t.Parallel()
	table := &term.Table{Palette: term.NewPalette(term.ColorAlways, false),
		Columns: []term.Column{{Name: "queue", Style: func(string) term.Style { return term.Yellow }}, {Name: "failed", Right: true, Style: term.Some(term.Red)}, {Name: "end"}}}
	table.Add("a", "0", "x")
	table.Add("longer", "12", "")
	var out bytes.Buffer
	if err := table.Print(&out, 0); err != nil {
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
	table := &term.Table{Columns: []term.Column{{Name: "queue"}, {Name: "error", Cut: true}, {Name: "E"}}}
	table.Add("a", "日本語のエラー", "x")
	table.Add("b", "👩‍💻 e\u0301t\u0301e\u0301", "x")
	table.Add("c", "plain and longer", "x")
	for _, width := range []int{0, 23, 22} {
		var out bytes.Buffer
		if err := table.Print(&out, width); err != nil {
			t.Fatal(err)
		}
		at := -1
		for line := range strings.Lines(out.String()) {
			if end := term.Width(line[:strings.LastIndexAny(line, "xE")]); at >= 0 && at != end {
				t.Errorf("width %d: columns do not stand below each other:\n%s", width, out.String())
			} else {
				at = end
			}
			if got := term.Width(strings.TrimSuffix(line, "\n")); width > 0 && got > width {
				t.Errorf("width %d: a line takes %d:\n%s", width, got, out.String())
			}
		}
	}
}

// Whatever comes from outside stands in its column: lines as they are to be, to the character.
func TestTableOfHostileTexts(t *testing.T) {
	t.Parallel()
	table := &term.Table{Columns: []term.Column{{Name: "number", Right: true}, {Name: "queue"}, {Name: "error", Cut: true}, {Name: "end"}}}
	for i, text := range []string{
		"日本語のエラーメッセージ", "👩‍💻 👨‍👩‍👧‍👦 👍🏿 ❤️", "🇯🇵🇩🇪 1️⃣", "e\u0301te\u0301 a\u0323\u0308", "\u0301 begins", "한글 오류", "می\u200cخواهم",
		"\x1b[31mred\x1b[0m", "\u202egnp.exe", "a\u200db\u200bc", "bad \xff", "tab\tand\r\nline", "",
	} {
		table.Add(strings.Repeat("9", i%3+1), []string{"sales", "売上", "été"}[i%3], text, "|")
	}
	for width, want := range map[int]string{
		0: `
NUMBER  QUEUE  ERROR                     END
     9  sales  日本語のエラーメッセージ  |
    99  売上   👩‍💻 👨‍👩‍👧‍👦 👍🏿 ❤️               |
   999  été    🇯🇵🇩🇪 1️⃣                   |
     9  sales  ` + "e\u0301te\u0301 a\u0323\u0308" + `                     |
    99  売上   ` + "\u0301" + ` begins                   |
   999  été    한글 오류                 |
     9  sales  ` + "می\u200cخواهم" + `                   |
    99  売上   \u001b[31mred\u001b[0m    |
   999  été    \u202egnp.exe             |
     9  sales  a\u200db\u200bc           |
    99  売上   bad \xff                  |
   999  été    tab and line              |
     9  sales                            |
`,
		34: `
NUMBER  QUEUE  ERROR           END
     9  sales  日本語のエラ…   |
    99  売上   👩‍💻 👨‍👩‍👧‍👦 👍🏿 ❤️     |
   999  été    🇯🇵🇩🇪 1️⃣         |
     9  sales  ` + "e\u0301te\u0301 a\u0323\u0308" + `           |
    99  売上   ` + "\u0301" + ` begins         |
   999  été    한글 오류       |
     9  sales  ` + "می\u200cخواهم" + `         |
    99  売上   \u001b[31mred…  |
   999  été    \u202egnp.exe   |
     9  sales  a\u200db\u200…  |
    99  売上   bad \xff        |
   999  été    tab and line    |
     9  sales                  |
`,
	} {
		var out bytes.Buffer
		if err := table.Print(&out, width); err != nil || out.String() != want[1:] {
			t.Errorf("width %d, err %v: got\n%s\nwant\n%s", width, err, out.String(), want[1:])
		}
	}
	for width := range 60 {
		var out bytes.Buffer
		if err := table.Print(&out, width); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		end := term.Width(lines[0]) - len("END")
		for _, line := range lines[1:] {
			if at := term.Width(strings.TrimSuffix(line, "|")); at != end || width > 31 && at+1 > width {
				t.Errorf("width %d: the last column stands at %d, its name at %d: %q", width, at, end, line)
			}
		}
	}
}
