package sqlqpubsub

import (
	"maps"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/sqlq/sqlq/sqlq"
)

// headerMetadata is the header with the metadata that is not allowed in headers, encoded as in the query of a URL.
const headerMetadata = "gocloud-metadata"

// Limits of sqlq's headers: the length of a name, in bytes, and how many there may be, without the adapter's own.
const (
	maxHeaderName = 200
	maxHeaders    = 99
)

// headerOptions returns metadata as headers.
func headerOptions(metadata map[string]string) (options []sqlq.SendOption) {
	other := url.Values{}
	for name, value := range metadata {
		if len(metadata) > maxHeaders || !isHeader(name, value) {
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

// metadataOf returns the metadata of a received message: its headers, without those of the library.
func metadataOf(headers sqlq.Headers) map[string]string {
	metadata := map[string]string{}
	for name, value := range headers {
		if !isLibrarys(name) && name != headerMetadata {
			metadata[name] = value
		}
	}
	values, _ := url.ParseQuery(headers[headerMetadata]) // of what somebody else has written, as much as can be read
	others := map[string]string{}
	for name := range values {
		others[name] = values.Get(name)
	}
	maps.Copy(metadata, others)
	return metadata
}

// isHeader reports whether metadata can be a header of sqlq as it is.
func isHeader(name, value string) bool {
	return name != "" && len(name) <= maxHeaderName && name != headerMetadata && !isLibrarys(name) && isText(name) && isText(value)
}

func isText(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

// isLibrarys reports whether a header is one of sqlq's own.
func isLibrarys(name string) bool {
	const prefix = "sqlq-"
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}
