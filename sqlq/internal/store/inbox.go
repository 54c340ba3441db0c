package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Inbox is what is known of the ids of messages that were handled, of queues that handle each once.
type Inbox struct{ base }

// Claim is what an endpoint may do with a message by its id.
type Claim byte

const (
	Unclaimed   Claim = iota // nobody has asked
	Claimed                  // handle it; nobody else handles one of this id
	Duplicate                // remove it: one of this id was handled within the window
	InHandsElse              // wait: another of this id is in somebody's hands
)

// Claim claims messages of a queue by their ids before they are handled, for a window within which one id is handled once:
// until the transaction ends, or, with an instance, for as long as its leases of them are there. It adds a row to the inbox for
// each that is claimed; when the transaction commits, the row says that the message was handled, unless Settle
// says something else. It waits for others' uncommitted claims for some 10 ms. Locks the inbox against being rotated, to
// the end of the transaction. It is done as the owner of the schema, for roles that may receive from the queue. Relies on
// the primary keys of the inbox.
func (s Inbox) Claim(ctx context.Context, db DBTX, queue string, ids [][16]byte, window time.Duration, instance int32, leases []int64) (map[[16]byte]Claim, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT id, state = 'claimed' FROM %s($1::text, $2::uuid[], $3::bigint * interval '1 microsecond', nullif($4::int, 0), $5::bigint[])`, s.table("claim_messages")),
		queue, uuids(ids), window.Microseconds(), instance, nonNil(leases))
	if err != nil {
		return nil, err
	}
	states := make(map[[16]byte]Claim, len(ids))
	for _, id := range ids {
		states[id] = InHandsElse
	}
	var id [16]byte
	var mine bool
	_, err = pgx.ForEachRow(rows, []any{&id, &mine}, func() error {
		if mine {
			states[id] = Claimed
		} else {
			states[id] = Duplicate
		}
		return nil
	})
	return states, err
}

// Claims are messages that were claimed and of which there is something to say before the transaction commits, by id.
type Claims struct {
	Handled   [][16]byte // by lease
	Unhandled [][16]byte // they may be handled again
	Leasing   [][16]byte // claimed by this transaction, and leased from now on
}

// Any says whether there is anything to say.
func (c *Claims) Any() bool { return len(c.Handled)+len(c.Unhandled)+len(c.Leasing) > 0 }

// Settle says what became of claimed messages: claimed for a lease of the instance, or, if they were not leased, by
// this transaction. Locks the rows of the inbox, and the inbox against being rotated. It is done as the owner of the
// schema. Relies on the primary keys of the inbox.
func (s Inbox) Settle(b *pgx.Batch, queue string, window time.Duration, c Claims, leased bool, instance int32) {
	b.Queue(fmt.Sprintf(`
		SELECT %s($1::text, $2::bigint * interval '1 microsecond', $3::uuid[], $4::uuid[], $5::uuid[], $6::boolean, $7::int)`, s.table("settle_claims")),
		queue, window.Microseconds(), uuids(c.Handled), uuids(c.Unhandled), uuids(c.Leasing), leased, instance)
}

// MayClaim says whether this role may use the inbox. Locks nothing.
func (s Inbox) MayClaim(ctx context.Context, db DBTX) (may bool, err error) {
	err = db.QueryRow(ctx, `
		SELECT coalesce(bool_and(has_function_privilege(p.oid, 'EXECUTE')), false) FROM pg_proc p
		WHERE p.pronamespace = to_regnamespace($1::text) AND p.proname IN ('claim_messages', 'settle_claims')`,
		pgx.Identifier{s.name}.Sanitize()).Scan(&may)
	return may, err
}

// Rotation is what Rotate has done.
type Rotation int

const (
	NotRotated Rotation = iota
	Rotated             // an inbox; it may be the turn of another
	SweptPiece          // a piece of one that is in use; there is more
)

// Rotate forgets the ids that were kept for their time: of an inbox whose turn it is the older half, by TRUNCATE; of one
// whose tables are in use for too long a piece, by DELETE, for half a second at most. An error with SQLSTATE 55P03 says that
// somebody has the tables of those that are left; it is to be tried again. For up to a quarter of a second for each nobody
// can claim messages in it meanwhile. It locks the rows that it deletes, and passes over those that are locked. It is done
// as the owner of the schema. Relies on scans by ranges of ctid.
func (s Inbox) Rotate(ctx context.Context, db DBTX) (done Rotation, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT %s()`, s.table("rotate_inbox"))).Scan(&done)
	return done, err
}

func uuids(ids [][16]byte) []pgtype.UUID {
	all := make([]pgtype.UUID, len(ids))
	for i, id := range ids {
		all[i] = pgtype.UUID{Bytes: id, Valid: true}
	}
	return all
}
