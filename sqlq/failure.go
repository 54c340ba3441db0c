package sqlq

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// Limits of what the error table keeps of an error, in bytes and links.
const (
	maxErrorText  = 8 << 10 // of the error, and of each link of its chain
	maxErrorType  = 500
	maxStack      = 32 << 10
	maxChainLinks = 32
)

// describe returns what the error table keeps of the failure of a message.
func describe(messageType string, err error) store.Failure {
	chain := unwrapAll(err)
	innermost := chain[len(chain)-1]
	f := store.Failure{
		ErrorType:   typeOf(innermost),
		Message:     clip(err.Error(), maxErrorText),
		Fingerprint: fingerprint(messageType, typeOf(innermost), err.Error()),
	}
	for _, link := range chain[:min(len(chain), maxChainLinks)] {
		f.Chain = append(f.Chain, typeOf(link)+": "+clip(link.Error(), maxErrorText))
	}
	var p *panicked
	if errors.As(err, &p) {
		stack := clip(p.stack, maxStack)
		f.Stack = &stack
		if len(chain) == 1 {
			f.ErrorType = "panic"
		}
	}
	return f
}

// unwrapAll lists an error and those that it wraps, outermost first, each branch of joined errors to its end before the
// next. The last is the innermost error of the last branch: with "%w: %w" of a sentinel and a cause, the cause.
func unwrapAll(err error) []error {
	chain := []error{err}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			chain = append(chain, unwrapAll(inner)...)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			if inner != nil {
				chain = append(chain, unwrapAll(inner)...)
			}
		}
	}
	return chain
}

// typeOf names the Go type of an error. Those of generic types can be long.
func typeOf(err error) string {
	return clip(strings.TrimPrefix(fmt.Sprintf("%T", err), "*"), maxErrorType)
}

// clip makes text fit to be stored and logged: valid, and at most limit bytes. Of a long one it looks at the beginning only.
func clip(s string, limit int) string {
	s = cleanText(s[:min(len(s), 4*limit)])
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}

// loggedError is an error as it is logged: with as much of its text as the error table keeps. It stays itself for whoever
// looks at it with errors.Is.
func loggedError(err error) error {
	if err == nil || len(err.Error()) <= maxErrorText {
		return err
	}
	return clippedError{err}
}

type clippedError struct{ error }

// Error implements error.
func (e clippedError) Error() string { return clip(e.error.Error(), maxErrorText) }

func (e clippedError) Unwrap() error { return e.error }

// loggedText is a text of a message's as it is logged: nobody can say how long it is.
func loggedText(s string) string { return clip(s, maxErrorType) }

// fingerprint puts failures of the same fault in one group: equal for equal message type, error type and text, where
// numbers, ids and addresses in the text do not count.
func fingerprint(messageType, errorType, text string) string {
	text = word.ReplaceAllStringFunc(clip(text, maxErrorText), withoutVarying)
	sum := sha256.Sum256([]byte(messageType + "\x00" + errorType + "\x00" + text))
	return hex.EncodeToString(sum[:8])
}

var (
	// word matches what an id, an address or a number is made of.
	word = regexp.MustCompile(`[\w.,:@%+µμ\[\]-]+`)
	// number matches what else differs between two failures of one fault, within a word: UUIDs, addresses in memory, and
	// runs of hex digits with a decimal digit in them, which numbers are too, with their signs, points and ports.
	number = regexp.MustCompile(`(?i)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}` +
		`|0x[0-9a-f]+` +
		`|[-+]?[0-9a-f]*[0-9][0-9a-f]*(?:[.,:][0-9]+)*`)
)

func withoutVarying(w string) string {
	core := strings.TrimRight(w, ".,:+-") // they may end a clause
	if strings.ContainsAny(core, "0123456789:@") && (isQuantity(core) || isAddress(core) || isID(core)) {
		return "#" + w[len(core):]
	}
	return number.ReplaceAllString(w, "#")
}

func isQuantity(w string) bool {
	if _, err := strconv.ParseFloat(w, 64); err == nil {
		return true
	}
	if _, err := time.ParseDuration(w); err == nil {
		return true
	}
	_, err := time.Parse(time.RFC3339, w)
	return err == nil
}

func isAddress(w string) bool {
	if _, err := netip.ParseAddr(strings.Trim(w, "[]")); err == nil {
		return true
	}
	if _, err := netip.ParseAddrPort(w); err == nil {
		return true
	}
	if _, err := net.ParseMAC(w); err == nil {
		return true
	}
	user, host, mail := strings.Cut(w, "@")
	return mail && user != "" && strings.Contains(host, ".")
}

// isID says whether a word looks like one that a program has drawn, a ULID, KSUID, nanoid or the like: long, and changing
// between digits, small and capital letters more often than people do, or between letters and digits.
func isID(w string) bool {
	const long = 16
	if len(w) < long {
		return false
	}
	changes, numbers, part := 0, 0, 0
	var last byte
	for i := range len(w) {
		var class byte
		switch c := w[i]; {
		case '0' <= c && c <= '9':
			class = '0'
		case 'a' <= c && c <= 'z':
			class = 'a'
		case 'A' <= c && c <= 'Z':
			class = 'A'
		case c == '-' || c == '_':
			numbers, part, last = 0, 0, 0
			continue
		default:
			return false
		}
		if class != last {
			if last != 0 {
				changes++
			}
			if class == '0' {
				numbers++
			}
			last = class
		}
		if part++; part >= long && numbers >= 3 {
			return true
		}
	}
	return 3*changes > len(w)
}
