package sending

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// SendAllIn stores messages in the caller's transaction: in one round trip if that is a transaction of pgx, otherwise in one for each
// statement. With notify it wakes sleeping receivers as part of the transaction, in one more round trip if there are any.
func (s *Sender) SendAllIn(ctx context.Context, tx store.Querier, all []Envelope, notify bool) error {
	var channels []string
	batch := &pgx.Batch{}
	s.Queue(batch, all, func(channel string) {
		if channel != "" && !slices.Contains(channels, channel) {
			channels = append(channels, channel)
		}
	})
	if batch.Len() == 0 {
		return nil
	}
	if err := runIn(ctx, tx, batch); err != nil {
		return err
	}
	if notify && len(channels) > 0 {
		if err := s.store.Sending.NotifyIn(ctx, tx, channels); err != nil {
			return err
		}
	}
	countCommands(all)
	return nil
}

// runIn runs the statements of a batch, each of which returns one row.
func runIn(ctx context.Context, tx store.Querier, batch *pgx.Batch) error {
	if pipelined, ok := tx.(interface {
		SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
	}); ok {
		return pipelined.SendBatch(ctx, batch).Close()
	}
	for _, q := range batch.QueuedQueries {
		if err := q.Fn(singly{ctx: ctx, tx: tx, query: q}); err != nil {
			return err
		}
	}
	return nil
}

// singly runs one statement of a batch by itself and returns its result. It passes arrays as text, because drivers of database/sql
// support only single values.
type singly struct {
	pgx.BatchResults // only QueryRow is called
	ctx              context.Context
	tx               store.Querier
	query            *pgx.QueuedQuery
}

// QueryRow implements pgx.BatchResults.
func (s singly) QueryRow() pgx.Row {
	args := slices.Clone(s.query.Arguments)
	for i := range args {
		args[i] = arrayText(args[i])
	}
	return s.tx.QueryRow(s.ctx, s.query.SQL, args...)
}

// arrayText returns an array, of the types that store passes, as PostgreSQL writes it. Other arguments are returned unchanged.
func arrayText(arg any) any {
	switch all := arg.(type) {
	case []pgtype.UUID:
		return textOf(all, func(id pgtype.UUID) string { return id.String() })
	case []string:
		return textOf(all, quotedElement)
	case [][]byte:
		return textOf(all, func(b []byte) string { return `"\\x` + hex.EncodeToString(b) + `"` })
	case []*string:
		return textOf(all, func(s *string) string { return orNull(s, quotedElement) })
	case []*int64:
		return textOf(all, func(n *int64) string {
			return orNull(n, func(n int64) string { return strconv.FormatInt(n, 10) })
		})
	case []*time.Time:
		return textOf(all, func(t *time.Time) string {
			return orNull(t, func(t time.Time) string { return quotedElement(t.UTC().Format(time.RFC3339Nano)) })
		})
	}
	return arg
}

// textOf returns null for a nil slice, as pgx does.
func textOf[T any](all []T, text func(T) string) any {
	if all == nil {
		return nil
	}
	var b strings.Builder
	b.WriteByte('{')
	for i, v := range all {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(text(v))
	}
	b.WriteByte('}')
	return b.String()
}

func orNull[T any](v *T, text func(T) string) string {
	if v == nil {
		return "NULL"
	}
	return text(*v)
}

func quotedElement(s string) string {
	return fmt.Sprintf(`"%s"`, strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s))
}
