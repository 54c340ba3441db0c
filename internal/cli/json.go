package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"github.com/sqlq/sqlq/internal/term"
)

// stringEnd returns where the JSON string ends that begins at i.
func stringEnd(text []byte, i int) int {
	for i++; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

// Layout: JSON is laid out over lines down to a depth, and what is nested deeper stands on one line. The depth is at most
// maxLaidOut, and less where the blanks would make a text more than eight times as long, and a mebibyte.
const (
	maxLaidOut  = 24
	layoutTimes = 8
	layoutBytes = 1 << 20
)

// layoutDepth returns to which depth a JSON text is laid out; 0: not at all.
func layoutDepth(text []byte) int {
	var added [maxLaidOut + 1]int // bytes, by depth
	depth := 0
	line := func(of, at int) {
		if of > 0 && of <= maxLaidOut {
			added[of] += 2 + 2*at // with the blank behind a colon
		}
	}
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			i = stringEnd(text, i) - 1
		case '[', '{':
			depth++
			line(depth, depth)
		case ',':
			line(depth, depth)
		case ']', '}':
			line(depth, depth-1)
			depth--
		}
	}
	left := layoutTimes*len(text) + layoutBytes
	for d := 1; d <= maxLaidOut; d++ {
		if left -= added[d]; left < 0 {
			return d - 1
		}
	}
	return maxLaidOut
}

// laidOut lays valid JSON out over lines, as deep as layoutDepth says.
func laidOut(text []byte) []byte {
	deepest := layoutDepth(text)
	out := bytes.NewBuffer(make([]byte, 0, len(text)*3/2))
	depth := 0
	line := func(of, at int) {
		if of <= deepest {
			out.WriteByte('\n')
			for range at {
				out.WriteString("  ")
			}
		}
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case ' ', '\t', '\n', '\r':
		case '"':
			end := stringEnd(text, i)
			out.Write(text[i:end])
			i = end - 1
		case '[', '{':
			out.WriteByte(c)
			rest := bytes.TrimLeft(text[i+1:min(len(text), i+64)], " \t\n\r")
			if len(rest) > 0 && (rest[0] == ']' || rest[0] == '}') {
				out.WriteByte(rest[0])
				for i++; text[i] != rest[0]; i++ {
				}
				continue
			}
			depth++
			line(depth, depth)
		case ']', '}':
			line(depth, depth-1)
			depth--
			out.WriteByte(c)
		case ',':
			out.WriteByte(c)
			line(depth, depth)
		case ':':
			out.WriteByte(c)
			if depth <= deepest {
				out.WriteByte(' ')
			}
		default:
			out.WriteByte(c)
		}
	}
	return out.Bytes()
}

// pretty lays JSON out over several lines; other text stays as it is.
func pretty(text []byte) string {
	if !json.Valid(text) {
		return string(text)
	}
	return string(laidOut(text))
}

// escaped writes the characters that a terminal would obey as JSON does, \u009b. Outside of strings there are none.
func escaped(text []byte) []byte {
	if bytes.IndexFunc(text, term.Obeyed) < 0 {
		return text
	}
	out := make([]byte, 0, len(text)+len(text)/8)
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if term.Obeyed(r) {
			out = fmt.Appendf(out, `\u%04x`, r)
		} else {
			out = append(out, text[i:i+size]...)
		}
		i += size
	}
	return out
}

// jsonLine returns a value as JSON on one line, without its end, that can be shown on a terminal.
func jsonLine(v any) ([]byte, error) {
	var text bytes.Buffer
	out := json.NewEncoder(&text)
	out.SetEscapeHTML(false)
	if err := out.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n")), nil
}
