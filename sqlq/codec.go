package sqlq

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"slices"
	"strings"
)

// Codec turns messages into bodies and back, in one format. A message names its format with a content type; see Config.Codecs.
type Codec struct {
	// ContentType names the format, with a media type such as "application/protobuf". It travels as a header, unless it is
	// "application/json". Its parameters travel with it, but bodies are matched without regard to parameters and case.
	// Default: none, it must be set. Unit: a media type of at most 200 bytes. Cost: the header's bytes, in each message.
	ContentType string
	// Match reports whether the Codec also reads bodies of a media type that is neither its own nor that of another Codec,
	// for a family such as application/*+json. It is given the media type in lower case, without parameters.
	// Default: it reads only its own. Cost: its time, for each attempt of a message of such a type.
	Match func(mediaType string) bool
	// Encodes reports whether the Codec accepts a message to send: the first one in Config.Codecs that does
	// encodes it.
	// Default: it accepts every message. Cost: its time, for each message sent.
	Encodes func(message any) bool
	// Encode makes the body of a message.
	// Default: none, it must be set. Cost: its time, for each message sent.
	Encode func(message any) ([]byte, error)
	// Decode reads a body into a pointer to the message.
	// Default: none, it must be set. Cost: its time, for each attempt.
	Decode func(body []byte, into any) error
}

const jsonContentType = "application/json"

// jsonCodec reads and writes JSON where no other Codec does. Unknown fields are ignored, so that a sender may add some.
var jsonCodec = Codec{ContentType: jsonContentType, Encode: json.Marshal, Decode: json.Unmarshal}

// codecs are those of a Client: Config.Codecs in their order, and JSON at the end.
type codecs struct {
	all   []Codec
	types []string // media types of all
	json  *Codec   // reads bodies that have no content type
}

// newCodecs makes codecs of what validateCodecs has seen.
func newCodecs(configured []Codec) *codecs {
	c := &codecs{}
	for _, codec := range append(slices.Clip(configured), jsonCodec) {
		mediaType, _ := mediaTypeOf(codec.ContentType)
		if slices.Contains(c.types, mediaType) {
			continue // JSON: there is one
		}
		c.all, c.types = append(c.all, codec), append(c.types, mediaType)
	}
	c.json = &c.all[slices.Index(c.types, jsonContentType)]
	return c
}

// encoding returns the Codec for a message that is sent. JSON is left for what no other is for.
func (c *codecs) encoding(message any) *Codec {
	for i := range c.all {
		if is := c.all[i].Encodes; is == nil || is(message) {
			return &c.all[i]
		}
	}
	return &jsonCodec
}

// encode returns the body of a message that is sent, and its content type.
func (c *codecs) encode(message any) (body []byte, contentType string, err error) {
	if raw := rawOf(message); raw != nil {
		return raw.encode()
	}
	codec := c.encoding(message)
	if body, err = codec.Encode(message); err != nil {
		return nil, codec.ContentType, fmt.Errorf("%w as %s: %w", ErrEncode, codec.ContentType, err)
	}
	return body, codec.ContentType, nil
}

// decode reads a body with a content type into a pointer to a message.
func (c *codecs) decode(contentType string, body []byte, into any) error {
	if raw, ok := into.(*Raw); ok {
		raw.decode(body, contentType)
		return nil
	}
	codec, err := c.decoding(contentType)
	if err != nil {
		return err
	}
	return codec.Decode(body, into)
}

// decoding returns the Codec that reads a body of a content type: the one whose media type it is, else the first that matches.
// Whole texts are compared first, because nearly all senders write what their Codec says.
func (c *codecs) decoding(contentType string) (*Codec, error) {
	if contentType == "" {
		return c.json, nil
	}
	for i := range c.all {
		if c.all[i].ContentType == contentType {
			return &c.all[i], nil
		}
	}
	mediaType, err := mediaTypeOf(contentType)
	if err != nil {
		return nil, fmt.Errorf("%w: its content type %.200q is not a media type: %w", ErrUndecodable, contentType, err)
	}
	if i := slices.Index(c.types, mediaType); i >= 0 {
		return &c.all[i], nil
	}
	for i := range c.all {
		if match := c.all[i].Match; match != nil && match(mediaType) {
			return &c.all[i], nil
		}
	}
	return nil, fmt.Errorf("%w: its content type is %.200q, and this process reads %s (Config.Codecs)", ErrUndecodable, contentType, quoted(c.types))
}

// mediaTypeOf returns the media type of a content type: in lower case, without parameters.
func mediaTypeOf(contentType string) (string, error) {
	mediaType, _, err := mime.ParseMediaType(contentType)
	if err == nil && !strings.Contains(mediaType, "/") {
		err = errors.New("mime: no subtype")
	}
	if err != nil {
		return "", err
	}
	return mediaType, nil
}

// checkContentType returns what is wrong with the content type of a Raw.
func checkContentType(contentType string) error {
	if len(contentType) > maxContentType || cleanText(contentType) != contentType {
		return fmt.Errorf("%.100q of %d bytes is not UTF-8 text without NUL of at most %d bytes", contentType, len(contentType), maxContentType)
	}
	if _, err := mediaTypeOf(contentType); err != nil {
		return fmt.Errorf("%q is not a media type, such as application/protobuf: %w", contentType, err)
	}
	return nil
}

// validateCodecs says what is wrong with Config.Codecs.
func validateCodecs(all []Codec) error {
	var errs []error
	var types []string
	for i, c := range all {
		mediaType, err := mediaTypeOf(c.ContentType)
		switch {
		case c.Encode == nil || c.Decode == nil || c.ContentType == "":
			errs = append(errs, fmt.Errorf("entry %d of Codecs needs ContentType, Encode and Decode", i))
		case len(c.ContentType) > maxContentType || cleanText(c.ContentType) != c.ContentType:
			errs = append(errs, fmt.Errorf("Codecs[%d].ContentType %.100q of %d bytes: it is UTF-8 text without NUL of at most %d bytes", i, c.ContentType, len(c.ContentType), maxContentType))
		case err != nil:
			errs = append(errs, fmt.Errorf("Codecs[%d].ContentType %q is not a media type, such as application/protobuf: %w", i, c.ContentType, err))
		case slices.Contains(types, mediaType):
			errs = append(errs, fmt.Errorf("Codecs[%d].ContentType %q: another Codec has this media type, and only one can read it", i, c.ContentType))
		}
		types = append(types, mediaType)
	}
	return errors.Join(errs...)
}
