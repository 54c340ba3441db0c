package sqlq

import (
	"fmt"
	"strings"
)

// Message is what one service sends to another: a command or, with the method IsEvent, an [Event].
type Message interface {
	// MessageType names the message on the wire, for example "sales.PlaceOrder": 1 to 200 ASCII letters, digits and
	// . _ / : -, beginning with a letter or digit. Keep it stable even if you rename the Go type. It is called on zero
	// values (and nil pointers), so it must not read fields.
	MessageType() string
}

// Event is a Message that says what has happened, in the past tense ("sales.OrderPlaced"). It is published to every
// queue that has subscribed to it. A Message that is not an Event is a command, and is sent to the one queue that its type is
// routed to.
type Event interface {
	Message
	// IsEvent only marks the type; it is never called.
	IsEvent()
}

// Headers are strings that travel with a body. Names are 1 to 200 bytes of UTF-8 text without NUL, and case matters; those that begin
// with "sqlq-", in any case, are reserved for the library. Values are UTF-8 text without NUL. A message has at most 100 headers,
// whose names and values are at most 64 KiB (65,536 bytes) together, because receivers read them with every message.
type Headers map[string]string

// Limits of a message's headers, which the database checks too (function check_message), in headers and bytes; of a
// correlation id, which travels along with everything that follows; and of a Codec's content type.
const (
	maxHeaders       = 100
	maxHeaderName    = 200
	maxHeaderBytes   = 64 << 10
	maxCorrelationID = 1000
	maxContentType   = 200
)

// The library's own headers; docs/wire.md has the table of all, of those too that are reserved for later releases. Their names are
// in lower case. A receiver ignores those that it does not know, so that later releases may add some, but for those that begin
// with contentPrefix: they say how the body is to be read.
const (
	headerPrefix         = "sqlq-"
	contentPrefix        = "sqlq-content-"
	headerContentType    = "sqlq-content-type"    // absent: JSON
	headerCorrelationID  = "sqlq-correlation-id"  // absent: the message's own id
	headerConversationID = "sqlq-conversation-id" // absent: the message's own id
	headerCrashes        = "sqlq-crashes"         // how many processes died of the message; present, it is under suspicion
	headerFirstFailedAt  = "sqlq-first-failed-at" // RFC 3339; of a message that is tried again
	headerWaited         = "sqlq-waited"          // a duration: how long it was made to wait for somebody who knows its type
	headerReplays        = "sqlq-replays"         // how often it came back from the error table
)

// unknownContentHeader returns the first header, by name, that says how the body is to be read and that this release does not know;
// "" if there is none. In other cases it says so to somebody who has mistyped it.
func unknownContentHeader(headers Headers) (unknown string) {
	for name := range headers {
		if len(name) >= len(contentPrefix) && strings.EqualFold(name[:len(contentPrefix)], contentPrefix) && name != headerContentType {
			if unknown == "" || name < unknown {
				unknown = name
			}
		}
	}
	return unknown
}

// isName says whether a name begins with an ASCII letter or digit, goes on with those and with what else is allowed, and
// is not too long. The database has the same rules (functions create_queue and check_message).
func isName(name string, longest int, allowed string) bool {
	for i, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i == 0 || strings.IndexByte(allowed, c) < 0:
			return false
		}
	}
	return name != "" && len(name) <= longest
}

func checkQueueName(name string) error {
	if !isName(name, 60, "._-") {
		return fmt.Errorf("%w: queue %q: use 1 to 60 ASCII letters, digits, dots, hyphens and underscores, beginning with a letter or digit", ErrInvalidName, name)
	}
	return nil
}

func checkTypeName(name string) error {
	if !isName(name, 200, "._/:-") {
		return fmt.Errorf("%w: message type %q: use 1 to 200 ASCII letters, digits and . _ / : -, beginning with a letter or digit", ErrInvalidName, name)
	}
	return nil
}

func checkHeader(name, value string) error {
	if name == "" || len(name) > maxHeaderName || cleanText(name) != name {
		return fmt.Errorf("%w: header %.200q: use 1 to %d bytes of UTF-8 text without NUL", ErrInvalidName, name, maxHeaderName)
	}
	if strings.HasPrefix(strings.ToLower(name), headerPrefix) {
		return fmt.Errorf("%w: header %q: names that begin with %q are the library's own", ErrInvalidName, name, headerPrefix)
	}
	if cleaned := cleanText(value); cleaned != value {
		return fmt.Errorf("%w: value of header %q is not UTF-8 text without NUL: encode it, in base64 for example", ErrInvalidName, name)
	}
	return nil
}

// checkHeaders checks the sender's headers, each and all together.
func checkHeaders(headers Headers) error {
	size := 0
	for name, value := range headers {
		if err := checkHeader(name, value); err != nil {
			return err
		}
		size += len(name) + len(value)
	}
	if len(headers) > maxHeaders || size > maxHeaderBytes {
		return fmt.Errorf("%w: %d headers of %d bytes, the limits are %d and %d: put the rest into the body", ErrHeadersTooLarge, len(headers), size, maxHeaders, maxHeaderBytes)
	}
	return nil
}

// cleanText makes any string one that PostgreSQL stores as text: valid UTF-8 without NUL.
func cleanText(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "")
}
