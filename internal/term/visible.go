package term

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// OneLine makes text from outside safe for one line of a terminal: white space becomes single blanks, and the rest Visible.
func OneLine(text string) string {
	return Visible(strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '\n' || r == '\t' || r == '\r' }), " "))
}

// Visible replaces control characters, invisible characters and bytes that are not UTF-8 by their numbers. Line ends and tabs stay,
// and so do joiners where they join: in emoji, and in scripts that need them.
func Visible(text string) string {
	if !strings.ContainsFunc(text, unseen) && utf8.ValidString(text) {
		return text
	}
	var b strings.Builder
	before := ' '
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		after, _ := utf8.DecodeRuneInString(text[i+size:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case !unseen(r), isJoiner(r) && isJoined(before) && isJoined(after):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		before = r
		i += size
	}
	return b.String()
}

// Obeyed reports whether a character controls the terminal, or the order in which it shows other characters. Line ends and tabs do
// not count.
func Obeyed(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Bidi_Control) && r != '\n' && r != '\t'
}

// unseen reports whether the character is invisible.
func unseen(r rune) bool {
	return Obeyed(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
}

// isJoiner reports whether a character only joins its neighbours, or keeps them from joining.
func isJoiner(r rune) bool { return r == '\u200c' || r == '\u200d' }

// isJoined reports whether a neighbour of a joiner may need it.
func isJoined(r rune) bool {
	return r > unicode.MaxLatin1 && r != utf8.RuneError && unicode.IsGraphic(r) && !unicode.IsSpace(r)
}
