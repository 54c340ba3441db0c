// Package ops is the operator's API of sqlq: look at queues and failed messages, and mend them. The command line is made
// of it, and so can be a page or a tool of your own.
//
//	o := ops.New(pool, "sqlq")
//	failed, err := o.ListFailed(ctx, ops.Filter{Queue: "billing", Limit: 50})
//	…
//	n, err := o.Replay(ctx, ops.Filter{Queue: "billing", Group: failed[0].Group}, ops.ReplayOptions{})
//
// # Queues
//
// [Ops.ListQueues] and [Ops.ShowQueue] say what waits, since when, and who handles it. [Ops.CreateQueue], [Ops.DropQueue],
// [Ops.PauseQueue] and [Ops.ResumeQueue] do what they are called. [Ops.Peek], [Ops.EachReady] and [Ops.Tail] look at messages
// without taking them; [Ops.Purge] and [Ops.Move] take them away; [AppendLine] writes them as lines that [Ops.Import] reads.
// [Ops.ListSubscriptions], [Ops.Subscribe], [Ops.Unsubscribe] and [Ops.ExplainRoute] say and change where events go.
//
// # Failed messages
//
// [Ops.GroupFailed] shows the faults, [Ops.ListFailed] and [Ops.EachFailed] the messages, [Ops.ShowFailed] one of them with all
// that is known of it, and [Ops.History] what was done to it. [Ops.Replay] sends them back to their queues, or to another one;
// [Ops.Archive], [Ops.Unarchive], [Ops.Delete] and [Ops.EditFailed] do the rest, and [Ops.PreviewReplay] and its like say
// beforehand what each would do. A [Filter] chooses, and means the same everywhere.
//
// # Delayed and leased messages
//
// [Ops.ListDelayed], [Ops.ShowDelayed], [Ops.Cancel] and [Ops.Reschedule] are for messages that wait for their time,
// [Ops.Leases] and [Ops.ReleaseLeases] for those in the hands of an instance, [Ops.Instances] for the instances.
//
// # Send
//
// [Ops.Send] and [Ops.Publish] send bodies as they are given, without the Go types of package sqlq.
//
// # Who may, who did, what is wrong
//
// [Ops.Grant] and [Ops.Revoke] say what a database role may do. Every change is written down: [Ops.By] says in whose name,
// [Ops.Operations] lists what was done, and [Ops.ResumeOperation] and [Ops.CancelOperation] go on with a long one, or end it.
// [Ops.Doctor] finds what keeps messages from flowing, and [Ops.Fix] mends what can be mended safely.
//
// # What others wrote and set
//
// How the pool's sessions are set (DateStyle, bytea_output, …) does not matter. A time that is infinite in the database is the
// end of the year 9999, or the beginning of the year 1. Texts, headers and bodies are as their writers left them: escape them
// for where you show them.
//
// # What it costs the database
//
// Nothing here counts or moves without a bound: counts are exact up to CountLimit and estimated above, and what changes
// many messages does so in batches, each a transaction of its own. A call that is interrupted says how far it came:
// [Ops.ResumeOperation] does the rest, or the same call again where that cannot.
//
// # Errors
//
// Each says what happened, where, and what to do. A queue that is not there is a [*NoQueueError], a change that stopped
// half-way an [*InterruptedError]; docs/errors.md in the repository lists all that a caller can tell apart with errors.Is and
// errors.As. What PostgreSQL refuses is a *pgconn.PgError inside, whose hint says what to do.
package ops

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// Ops works on the sqlq schema of one database. It is safe for concurrent use, and needs no closing: the pool is the
// caller's.
type Ops struct {
	pool  pool
	store *query.Schema
	actor Actor
}

// New returns an Ops for the schema of that name in the pool's database. It does not connect; see SchemaVersion.
func New(db *pgxpool.Pool, schema string) *Ops {
	return &Ops{pool: newPool(db), store: query.New(schema)}
}

// SchemaVersion returns the version of the last migration that was applied to the schema; false when there is none, or no
// such schema. Compare it with migrations.Latest.
func (o *Ops) SchemaVersion(ctx context.Context) (version int64, exists bool, err error) {
	version, exists, err = o.store.Version(ctx, o.pool)
	if err != nil {
		return 0, false, fmt.Errorf("read version of schema %q: %w", o.store.Name(), err)
	}
	return version, exists, nil
}

// within runs f in a read-only transaction each of whose statements may take d, 0: as long as it likes. It returns false when one took longer.
func (o *Ops) within(ctx context.Context, d time.Duration, f func(tx pgx.Tx) error) (bool, error) {
	err := pgx.BeginTxFunc(ctx, o.pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if err := o.store.LimitStatements(ctx, tx, d); err != nil {
			return err
		}
		return f(tx)
	})
	if ctx.Err() == nil && sqlState(err) == queryCanceled {
		return false, nil
	}
	return err == nil, err
}

// rolledBack runs f in a transaction of which nothing stays.
func (o *Ops) rolledBack(ctx context.Context, f func(tx pgx.Tx) error) error {
	tx, err := o.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // a connection on which it fails is closed
	return f(tx)
}

// wake notifies a sleeping receiver after a commit. It does so even when ctx has just ended, because the messages are
// there; a receiver that is not told finds them at its next poll.
func (o *Ops) wake(ctx context.Context, channel string) error {
	if channel == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := o.store.Notify(ctx, o.pool, []string{channel}); err != nil {
		return fmt.Errorf("wake the receivers: %w", err)
	}
	return nil
}

// SQLSTATEs that mean something here.
const (
	queryCanceled         = "57014"
	undefinedTable        = "42P01"
	insufficientPrivilege = "42501"
	dataException         = "22" // its class
)

func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}
