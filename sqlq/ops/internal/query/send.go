package query

import (
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// JSONMessage is a message of SendJSON and PublishJSON.
type JSONMessage struct {
	Type    string
	Body    []byte
	Headers []byte        // a JSON object of strings; nil: none
	Delay   time.Duration // before it is ready
	At      time.Time     // or when it is; one that has passed is now; zero: Delay counts
	TTL     time.Duration // 0: it lives for ever
	ID      string        // "": the database makes one
}

// args are the arguments of the SQL functions send and publish after their first, from $2 on.
func (m JSONMessage) args(first string) (call string, args []any) {
	return `$2::text::json, $3::text::json,
			CASE WHEN $4::timestamptz IS NULL THEN $5::bigint * interval '1 microsecond' ELSE greatest($4::timestamptz - clock_timestamp(), interval '0') END,
			nullif($6::bigint, 0) * interval '1 microsecond', nullif($7::text, '')::uuid`,
		[]any{first, string(m.Body), textOrNil(m.Headers), timeOrNil(m.At), m.Delay.Microseconds(), m.TTL.Microseconds(), m.ID}
}

// SendJSON queues a call of the SQL function send, which checks the message, stores it and wakes a receiver as part of
// the transaction, and hands the message's id to then.
func (s sendQueries) SendJSON(b *pgx.Batch, queue string, m JSONMessage, then func(id string)) {
	call, args := m.args(queue)
	b.Queue(fmt.Sprintf(`SELECT %s($1::text, $8::text, %s)::text`, s.table("send"), call), append(args, m.Type)...).QueryRow(func(row pgx.Row) error {
		var sent string
		if err := row.Scan(&sent); err != nil {
			return err
		}
		then(sent)
		return nil
	})
}

// PublishJSON queues a call of the SQL function publish, which checks the event, stores a copy in each subscribed queue and
// wakes receivers as part of the transaction, and hands the number of copies to then.
func (s sendQueries) PublishJSON(b *pgx.Batch, m JSONMessage, then func(copies int)) {
	call, args := m.args(m.Type)
	b.Queue(fmt.Sprintf(`SELECT %s($1::text, %s)`, s.table("publish"), call), args...).QueryRow(func(row pgx.Row) error {
		var copies int
		if err := row.Scan(&copies); err != nil {
			return err
		}
		then(copies)
		return nil
	})
}
