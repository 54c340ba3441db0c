package ops

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// Edit is what Failed.Edit makes of a message.
type Edit struct {
	// Headers are all that the message is to have, but for the library's own, whose names begin with sqlq-: those stay.
	// nil: headers stay as they are.
	Headers map[string]string
	// Body is the new body; nil: it stays as it is.
	Body []byte
}

// Edit gives a failed message other headers, another body, or both, and reports whether anything changed: JSON that is
// only laid out differently has not. m is the message as Failed.Show returned it. The original goes into the message's
// history, see History. The new headers and body must be such as could be sent, and a body that was JSON must be JSON
// again; a *BodyError or the database says what is wrong.
//
// Nothing is changed if the message was edited in the meantime: ErrChanged; or replayed or deleted: *NoFailedError.
func (o Failed) Edit(ctx context.Context, m FailedMessage, e Edit) (changed bool, err error) {
	edited, err := o.PreviewEdit(ctx, m, e)
	if err != nil {
		return false, err
	}
	var headers *string
	if edited.Headers != nil {
		text := string(edited.Headers)
		headers = &text
	}
	body := edited.Body
	if bytes.Equal(body, m.Body) {
		body = nil
	}
	if body == nil && bytes.Equal(edited.Headers, m.Headers) {
		return false, nil
	}
	err = pgx.BeginFunc(ctx, o.pool, func(tx pgx.Tx) error {
		one := int64(1)
		id, err := o.beginIn(ctx, tx, kindEdit, map[string]any{"Names": []string{fmt.Sprint(m.Number)}}, query.Operation{Queue: &m.Queue, Wanted: &one}, query.Place{})
		if err != nil {
			return err
		}
		was := query.FailedHash{Headers: sha256.Sum256(m.Headers), Body: sha256.Sum256(m.Body)}
		done, err := o.store.EditFailed(ctx, tx, m.Number, was, id, headers, body)
		if err != nil {
			return err
		}
		if !done {
			return o.whyNotEdited(ctx, tx, m)
		}
		return o.recorded(ctx, tx, id, 1, query.Place{Seq: m.Number})
	})
	if err != nil {
		return false, fmt.Errorf("edit failed message %d: %w", m.Number, err)
	}
	return true, nil
}

func (o Failed) whyNotEdited(ctx context.Context, tx pgx.Tx, m FailedMessage) error {
	there, err := o.store.ReadFailed(ctx, tx, m.Number)
	if err == nil && len(there) == 0 {
		return &NoFailedError{Missing: []string{fmt.Sprint(m.Number)}}
	}
	if err == nil {
		return ErrChanged
	}
	return err
}

// PreviewEdit returns a message as Failed.Edit would make it, and changes nothing. Its errors are those of Failed.Edit.
func (o Failed) PreviewEdit(ctx context.Context, m FailedMessage, e Edit) (FailedMessage, error) {
	if e.Body != nil {
		body, err := editedBody(m.Body, e.Body)
		if err != nil {
			return m, &BodyError{Err: err}
		}
		m.Body = body
	}
	if e.Headers == nil {
		return m, nil
	}
	own, others, readable := SplitHeaders(m.Headers)
	if readable && maps.Equal(others, e.Headers) {
		return m, nil
	}
	given, err := json.Marshal(e.Headers)
	if err != nil {
		return m, fmt.Errorf("encode headers: %w", err)
	}
	if _, err := o.store.CheckHeaders(ctx, o.pool, given); err != nil {
		return m, fmt.Errorf("headers: %w", err)
	}
	maps.Copy(own, e.Headers)
	if len(own) == 0 {
		m.Headers = nil
		return m, nil
	}
	var text bytes.Buffer
	out := json.NewEncoder(&text)
	out.SetEscapeHTML(false)
	if err := out.Encode(own); err != nil {
		return m, fmt.Errorf("encode headers: %w", err)
	}
	m.Headers = bytes.TrimSpace(text.Bytes())
	return m, nil
}

// editedBody returns a body as it is to be stored: the old one where it only looks different.
func editedBody(old, edited []byte) ([]byte, error) {
	if !isJSON(old) {
		if len(edited) > MaxBody {
			return nil, fmt.Errorf("the body has more than %d bytes, the most that a message carries", MaxBody)
		}
		return edited, nil
	}
	edited = bytes.TrimSpace(bytes.TrimPrefix(edited, []byte("\ufeff")))
	if err := checkBody(edited); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, fmt.Errorf("%w, in line %d", err, 1+bytes.Count(edited[:min(int(syntax.Offset), len(edited))], []byte{'\n'}))
		}
		return nil, err
	}
	var was, is bytes.Buffer
	if err := errors.Join(json.Compact(&was, old), json.Compact(&is, edited)); err != nil {
		return nil, err
	}
	if bytes.Equal(was.Bytes(), is.Bytes()) {
		return old, nil
	}
	return is.Bytes(), nil
}

func isJSON(body []byte) bool { return json.Valid(body) && utf8.Valid(body) }

// SplitHeaders returns the headers of a message apart: the library's own, and the others. false: they cannot be read,
// because they are no JSON object of strings.
func SplitHeaders(headers json.RawMessage) (own, others map[string]string, readable bool) {
	own, others = map[string]string{}, map[string]string{}
	if headers == nil {
		return own, others, true
	}
	var all map[string]string
	if json.Unmarshal(headers, &all) != nil || all == nil {
		return own, others, false
	}
	for name, value := range all {
		if strings.HasPrefix(strings.ToLower(name), "sqlq-") {
			own[name] = value
		} else {
			others[name] = value
		}
	}
	return own, others, true
}
