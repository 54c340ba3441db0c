package cli

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// Whatever a sender writes, laying it out makes it a few times as long at most, and says the same.
func TestLayoutIsBounded(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", 9_000)
	for name, text := range map[string]string{
		"deep":          deep + strings.Repeat("]", 9_000),
		"deep and wide": deep + strings.Repeat("1,", 50_000) + "1" + strings.Repeat("]", 9_000),
		"wide at 20":    strings.Repeat(`{"a":[`, 10) + strings.Repeat("0,", 1_000_000) + "0" + strings.Repeat("]}", 10),
		"usual":         `{"order": 17, "lines": [{"sku":"a\"]}","n":1}, { }, [ ]], "empty":""}`,
	} {
		got := laidOut([]byte(text))
		if most := layoutTimes*len(text) + layoutBytes + len(text); len(got) > most {
			t.Errorf("%s: %d bytes became %d", name, len(text), len(got))
		}
		var was, is bytes.Buffer
		if json.Compact(&was, []byte(text)) != nil || json.Compact(&is, got) != nil || !bytes.Equal(was.Bytes(), is.Bytes()) {
			t.Errorf("%s: it says something else", name)
		}
	}
}

func TestLayout(t *testing.T) {
	t.Parallel()
	text := `{"order": 17, "lines":[{"sku":"a\"]},: ","n":1.50},{ },[ ]],"x":null}`
	var want bytes.Buffer
	if err := json.Indent(&want, []byte(text), "", "  "); err != nil {
		t.Fatal(err)
	}
	if got := string(laidOut([]byte(text))); got != want.String() {
		t.Errorf("got\n%s\nwant\n%s", got, want.String())
	}
	if got := pretty([]byte("no JSON {")); got != "no JSON {" {
		t.Errorf("other text became %q", got)
	}
}

// obeyedBy are characters that steer a terminal or turn its text round, raw.
const obeyedBy = "\x7f \u0085 \u009b31m \u202e \u2066 \u200f \u061c"

func TestJSONShowsWhatATerminalWouldObey(t *testing.T) {
	t.Parallel()
	for _, f := range []format{formatJSON, formatJSONL, formatYAML} {
		var out bytes.Buffer
		e := &env{format: f, streams: streams{out: &out}}
		raw := json.RawMessage(`{"` + obeyedBy + `":"` + obeyedBy + `"}`)
		if err := e.printData(map[string]any{"text": "\x1b[2J" + obeyedBy, "raw": raw, "body": ops.Message{Body: raw}}); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsFunc(out.String(), term.Obeyed) {
			t.Errorf("%s: %q", f, out.String())
		}
		var read struct {
			Text string
			Raw  map[string]string
		}
		decode := json.Unmarshal
		if f == formatYAML {
			decode = yaml.Unmarshal
		}
		if err := decode(out.Bytes(), &read); err != nil || read.Text != "\x1b[2J"+obeyedBy || read.Raw[obeyedBy] != obeyedBy {
			t.Errorf("%s: it reads back as %q, %v", f, read, err)
		}
	}
}

// Headers and bodies of any depth and times of any year stand in our JSON, which every parser reads.
func TestJSONTakesWhatADatabaseHolds(t *testing.T) {
	t.Parallel()
	deep := []byte(strings.Repeat("[", 200_000) + strings.Repeat("]", 200_000))
	for _, at := range []time.Time{time.Date(-4000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(294_276, 1, 1, 0, 0, 0, 0, time.UTC)} {
		for _, f := range []format{formatJSON, formatJSONL, formatYAML} {
			var out bytes.Buffer
			e := &env{format: f, streams: streams{out: &out}}
			err := e.printData([]ops.Message{{SentAt: at, Headers: deep[199_000:201_000], Body: deep}, {Headers: deep, Body: deep[199_000:201_000]}, {Body: []byte("\xff")}})
			var read any
			if err == nil {
				err = yaml.Unmarshal(out.Bytes(), &read) // JSON is YAML
			}
			if err != nil {
				t.Errorf("%s, year %d: %v", f, at.Year(), err)
			}
		}
	}
}

func yamlText(t testing.TB, text string) string {
	t.Helper()
	node, err := yamlOf([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	var out bytes.Buffer
	encode := yaml.NewEncoder(&out)
	encode.SetIndent(2)
	if err := encode.Encode(node); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return string(escaped(out.Bytes()))
}

// same reports whether what was read from YAML is what stood in the JSON.
func same(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, is := b.(map[string]any)
		if !is || len(a) != len(b) {
			return false
		}
		for name := range a {
			if other, there := b[name]; !there || !same(a[name], other) {
				return false
			}
		}
		return true
	case []any:
		b, is := b.([]any)
		if !is || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !same(a[i], b[i]) {
				return false
			}
		}
		return true
	case float64:
		switch b := b.(type) {
		case int:
			return float64(b) == a
		case uint64:
			return float64(b) == a
		case float64:
			return b == a || math.IsNaN(a) && math.IsNaN(b)
		}
		return false
	}
	return reflect.DeepEqual(a, b)
}

// FuzzYAML holds that a reader of YAML finds what a reader of JSON does.
func FuzzYAML(f *testing.F) {
	for _, text := range []string{
		`{"x":"\ud83d\ude00"}`, `{"url":"https:\/\/x"}`, `["` + obeyedBy + `"]`, `{"no":"yes","on":"off","y":"~","1:30":"1:30","null":"","=":"<<","<<":"0x1f"}`,
		`{"a":1,"a":[2]}`, `[1e5,1.5E10,-0,0.1e-7,12345678901234567890,-1]`, `["a\nb","a\n","\n","a\n\n"," a\n","a \nb","\ta","a\t\nb","a\n b","-","- a","a: b","a #b","a:","&a","*a","!a","%a","@a","|","'","\""]`,
		`["\ud800","\u0000","\ufeff","\ufffe","\u2028","\u0085x\ny"]`, `{"":{"":[]},"k\nl":{}}`, strings.Repeat(`{"a":[`, 40) + "1" + strings.Repeat("]}", 40),
		`{"` + strings.Repeat("k", 2000) + `":"2026-03-01T00:00:00Z"}`, `"2026-03-01"`, `"1_000"`, `"0o17"`, `".inf"`, `".5"`, `"+1"`, `"12e3"`, `"# a"`, `"...\nb"`, `"---"`, `"--- a"`, `"? a"`, `"goroutine 1:\nmain()\n\t/a.go:1 +0x1\n"`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) || !json.Valid([]byte(text)) || strings.Count(text, "[")+strings.Count(text, "{") > 900 {
			return // ops puts nothing deeper into its JSON
		}
		var want, got any
		if json.Unmarshal([]byte(text), &want) != nil { // a number that no float64 is
			return // none of its business
		}
		compact, err := jsonLine(json.RawMessage(text))
		if err != nil {
			t.Fatal(err)
		}
		out := yamlText(t, string(compact))
		if err := yaml.Unmarshal([]byte(out), &got); err != nil || !same(want, got) {
			t.Errorf("%q became %q, which reads as %v, not %v (%v)", text, out, got, want, err)
		}
		if strings.ContainsFunc(out, term.Obeyed) {
			t.Errorf("%q became %q", text, out)
		}
	})
}

// What YAML 1.1 takes for something else than text, as its readers in Python and Ruby do, stands in quotes.
func TestYAMLQuotesWhatOldReadersMistake(t *testing.T) {
	t.Parallel()
	// The resolvers of PyYAML.
	mistaken := regexp.MustCompile(`^(?:` + strings.Join([]string{
		`yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF|y|Y|n|N`,
		`[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)`,
		`[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+`,
		`<<|=|~|null|Null|NULL|`, `\d\d\d\d-\d\d-\d\d|\d\d\d\d-\d\d?-\d\d?(?:[Tt]|[ \t]+)\d\d?:\d\d:\d\d.*`}, `|`) + `)$`)
	for _, text := range []string{"yes", "No", "ON", "off", "y", "N", "1:30", "1:30.5", "0777", "0b1", "1_000", "+1", "-.inf", ".NaN", "~", "Null", "", "=", "<<",
		"2026-03-01", "2026-03-01 10:00:00", "1.", "1e3", "0x1F", "12345678"} {
		quoted, _ := json.Marshal(text)
		out := strings.TrimSuffix(yamlText(t, string(quoted)), "\n")
		if mistaken.MatchString(out) || !strings.HasPrefix(out, `"`) {
			t.Errorf("%q stands there as %s", text, out)
		}
	}
	for number, want := range map[string]string{"1e5": "1.0e+5", "1.5E-7": "1.5e-7", "1.5e7": "1.5e+7", "17": "17", "-0.5": "-0.5"} {
		if got := strings.TrimSuffix(yamlText(t, number), "\n"); got != want || !mistaken.MatchString(got) {
			t.Errorf("%s: got %s, want %s", number, got, want)
		}
	}
	for _, text := range []string{"sales.PlaceOrder", "0198c0de-7a00-7000-8000-000000000001", "日本", "charge the card"} {
		if got := strings.TrimSuffix(yamlText(t, `"`+text+`"`), "\n"); got != text {
			t.Errorf("%s stands there as %s", text, got)
		}
	}
}

// What the editor shows steers no terminal, and reads back as what it was: the body byte for byte where only headers change.
func TestEditableShowsWhatATerminalWouldObey(t *testing.T) {
	t.Parallel()
	headers, err := json.Marshal(map[string]string{"tenant": obeyedBy, "a\x1b:\n" + obeyedBy: "x", "sqlq-\x1b": "\x1b" + obeyedBy})
	if err != nil {
		t.Fatal(err)
	}
	body := []byte(`{"` + obeyedBy + `": 1.0}`)
	m := ops.FailedMessage{Type: "T\x1b" + obeyedBy, Queue: obeyedBy, Error: "\x1b[2J", Headers: headers, Body: body}
	text := editable(m)
	if strings.ContainsFunc(text, term.Obeyed) {
		t.Errorf("%q", text)
	}
	edit, err := readEdited(m, strings.Replace(text, "tenant: ", "tenant2: ", 1))
	if err != nil || edit.Body != nil || len(edit.Headers) != 2 || edit.Headers["tenant2"] != obeyedBy || edit.Headers["a\x1b:\n"+obeyedBy] != "x" {
		t.Errorf("got %q, %v", edit, err)
	}
	edit, err = readEdited(m, strings.Replace(text, "1.0", "2", 1))
	var read map[string]int
	if err != nil || json.Unmarshal(edit.Body, &read) != nil || read[obeyedBy] != 2 {
		t.Errorf("got %q, %v", edit, err)
	}
}
