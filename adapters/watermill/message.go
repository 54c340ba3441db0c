package sqlqwatermill

import (
	"bytes"
	"context"
	"maps"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/sqlq/sqlq/sqlq"
)

// Headers of the adapter's own.
const (
	headerUUID     = "watermill-uuid"     // the message's UUID, if it is not one that sqlq.ParseID reads
	headerMetadata = "watermill-metadata" // metadata that is not allowed in headers, encoded as in the query of a URL
)

// Limits of sqlq's headers: the length of a name, in bytes, and how many there may be, without those of the adapter's own.
const (
	maxHeaderName = 200
	maxHeaders    = 98
)

// options returns what a Watermill message has besides its payload: its UUID and its metadata. A UUID in the usual form becomes the id of
// the sqlq message, which operators see and windows of time compare (SubscriberConfig.Deduplicate).
func options(m *message.Message) (options []sqlq.SendOption) {
	if id, err := sqlq.ParseID(m.UUID); err == nil && id != (sqlq.ID{}) && id.String() == m.UUID {
		options = append(options, sqlq.WithID(id))
	} else {
		options = append(options, sqlq.WithHeader(headerUUID, url.QueryEscape(m.UUID)))
	}
	other := url.Values{}
	for name, value := range m.Metadata {
		if len(m.Metadata) > maxHeaders || !isHeader(name, value) {
			other.Set(name, value)
			continue
		}
		options = append(options, sqlq.WithHeader(name, value))
	}
	if len(other) > 0 {
		options = append(options, sqlq.WithHeader(headerMetadata, other.Encode()))
	}
	return options
}

// isHeader reports whether metadata can be a header of sqlq as it is.
func isHeader(name, value string) bool {
	return name != "" && len(name) <= maxHeaderName && name != headerUUID && name != headerMetadata && !isLibrarys(name) &&
		isText(name) && isText(value)
}

func isText(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

// isLibrarys reports whether a header is one of sqlq's own.
func isLibrarys(name string) bool {
	const prefix = "sqlq-"
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}

// newMessage makes a Watermill message of what was received, for one delivery. A message that was not published by this adapter has the
// id of the sqlq message as its UUID.
func newMessage(ctx context.Context, d *sqlq.Delivery[sqlq.Raw]) *message.Message {
	uuid := d.ID.String()
	if escaped, is := d.Headers[headerUUID]; is {
		uuid = unescaped(escaped)
	}
	m := message.NewMessageWithContext(ctx, uuid, bytes.Clone(d.Body)) // its handler may write into the payload
	for name, value := range d.Headers {
		if !isLibrarys(name) && name != headerUUID && name != headerMetadata {
			m.Metadata.Set(name, value)
		}
	}
	maps.Copy(m.Metadata, otherMetadata(d.Headers[headerMetadata]))
	return m
}

// unescaped reverses url.QueryEscape. What somebody else has written is left as it is.
func unescaped(escaped string) string {
	if s, err := url.QueryUnescape(escaped); err == nil {
		return s
	}
	return escaped
}

func otherMetadata(encoded string) message.Metadata {
	values, _ := url.ParseQuery(encoded) // of what somebody else has written, as much as can be read
	metadata := message.Metadata{}
	for name := range values {
		metadata[name] = values.Get(name)
	}
	return metadata
}
