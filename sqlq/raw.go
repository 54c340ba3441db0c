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

// Raw is a message without a Go type: bytes, and what they are. It is for programs that pass messages on without knowing them,
// such as bridges, audits, proxies and forwarders. Whatever takes a Message takes a Raw. It is no Event and no command by its type:
// Send sends it as a command, Publish publishes it as an event. Config.Codecs have no part in it.
type Raw struct {
	// Type is the message type; see [Message] for what it may be.
	Type string
	// Body is sent as it is, and copied: what the caller writes into it afterwards does not matter. As JSON it must be valid,
	// in UTF-8. Of a message that is received it must not be changed.
	Body []byte
	// ContentType is the media type of the body, of at most 200 bytes, and travels unchanged. Empty: "application/json"; of a
	// message that is received it is never empty.
	ContentType string
}

// MessageType implements Message.
func (r Raw) MessageType() string { return r.Type }

// encode returns the body to be stored and its content type, or says why no receiver could read it.
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

// decode fills in a body as it was received.
func (r *Raw) decode(body []byte, contentType string) {
	r.Body, r.ContentType = body, cmp.Or(contentType, jsonContentType)
}

// checkJSON says what is wrong with a body that should be JSON.
func checkJSON(body []byte) error {
	switch {
	case len(body) == 0:
		return errors.New("the body is empty, and the least JSON is null; name the ContentType of what is not JSON")
	case !utf8.Valid(body):
		return errors.New("the body is not UTF-8, as JSON is; name the ContentType of what is not JSON")
	case !json.Valid(body):
		var none json.RawMessage
		return json.Unmarshal(body, &none) // says where
	}
	return nil
}

// HandleRaw makes a Handler for messages of a type that has no Go type here: they are handed over as they came, whatever their
// content type. It is as [Handle] otherwise. The type is a command's, unless [Endpoint].Subscribe names it. With an empty type it is one
// for [Endpoint].Otherwise.
func HandleRaw(messageType string, handle func(ctx context.Context, d *Delivery[Raw]) error) Handler {
	return newRawHandler(messageType, false, func(ctx context.Context, _ pgx.Tx, d *Delivery[Raw]) error { return handle(ctx, d) })
}

// HandleRawTx is to [HandleTx] what HandleRaw is to [Handle].
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

// isNil reports whether a message is not there at all. Nil pointers of other types are messages: their Codec decides.
func isNil(m Message) bool { return m == nil || m == Message((*Raw)(nil)) }

// rawOf returns a message without a Go type; nil if it has one.
func rawOf(m any) *Raw {
	switch m := m.(type) {
	case Raw:
		return &m
	case *Raw:
		return m
	}
	return nil
}
