package sqlq

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// Raw is a message without a Go type: a body in bytes, with its message type and content type. It is for programs that pass messages on
// without knowing them, such as bridges, audits and proxies. Every function that takes a Message takes a Raw. Its Go type does not say
// whether it is a command or an event: Send sends it as a command, Publish publishes it as an event. Config.Codecs are not used for it.
type Raw struct {
	// Type is the message type; see [Message] for what is allowed.
	Type string
	// Body is sent unchanged. The send copies it, so the caller may change it afterwards. If the content type says JSON, it must be
	// valid JSON in UTF-8. The body of a received message must not be changed.
	Body []byte
	// ContentType is the media type of the body, of at most 200 bytes, and reaches the receiver unchanged. Empty: "application/json".
	// It is never empty in a received message.
	ContentType string
}

// MessageType implements Message.
func (r Raw) MessageType() string { return r.Type }

// encode returns the body to be stored and its content type. The error says why no receiver could read it.
func (r *Raw) encode() (body []byte, contentType string, err error) {
	contentType = cmp.Or(r.ContentType, jsonContentType)
	if err := checkContentType(contentType); err != nil {
		return nil, contentType, fmt.Errorf("%w: its content type %w", ErrEncode, err)
	}
	if mediaType, _ := mediaTypeOf(contentType); mediaType == jsonContentType || strings.HasSuffix(mediaType, "+json") {
		if err := checkJSON(r.Body); err != nil {
			return nil, contentType, fmt.Errorf("%w as %s: %w", ErrEncode, contentType, err)
		}
	}
	return bytes.Clone(r.Body), contentType, nil
}

// decode sets the body and its content type as they were received.
func (r *Raw) decode(body []byte, contentType string) {
	r.Body, r.ContentType = body, cmp.Or(contentType, jsonContentType)
}

// checkJSON returns what is wrong with a body that should be JSON.
func checkJSON(body []byte) error {
	switch {
	case len(body) == 0:
		return errors.New("the body is empty, which is not JSON; set ContentType if it is something else")
	case !utf8.Valid(body):
		return errors.New("the body is not UTF-8, so it is not JSON; set ContentType if it is something else")
	case !json.Valid(body):
		var none json.RawMessage
		return json.Unmarshal(body, &none) // says where
	}
	return nil
}

// HandleRaw makes a Handler for messages of a type that has no Go type in this program. The function gets their bodies unchanged,
// whatever their content type is. Everything else is as in [Handle]. The messages are commands, unless [Endpoint].Subscribe names the
// type. With an empty type it makes a Handler for [Endpoint].Otherwise.
func HandleRaw(messageType string, handle func(ctx context.Context, d *Delivery[Raw]) error) Handler {
	return newRawHandler(messageType, false, func(ctx context.Context, _ pgx.Tx, d *Delivery[Raw]) error { return handle(ctx, d) })
}

// HandleRawTx is HandleRaw with the transaction of [HandleTx].
func HandleRawTx(messageType string, handle func(ctx context.Context, tx pgx.Tx, d *Delivery[Raw]) error) Handler {
	return newRawHandler(messageType, true, handle)
}

func newRawHandler(messageType string, inTx bool, handle func(context.Context, pgx.Tx, *Delivery[Raw]) error) Handler {
	return Handler{messageType: messageType, raw: true, inTx: inTx, run: func(ctx context.Context, tx pgx.Tx, in *Incoming) error {
		d := &Delivery[Raw]{Incoming: in}
		if err := in.decode(&d.Message); err != nil {
			return err
		}
		in.ctx = ctx
		return handle(ctx, tx, d)
	}}
}

// isNil reports whether there is no message. Nil pointers of other types are messages: their Codec decides about them.
func isNil(m Message) bool { return m == nil || m == Message((*Raw)(nil)) }

// rawOf returns a message as a Raw; nil if it is not one.
func rawOf(m any) *Raw {
	switch m := m.(type) {
	case Raw:
		return &m
	case *Raw:
		return m
	}
	return nil
}
