// Package ops is the operator's API of sqlq: look at queues and failed messages, and fix what is wrong. The command line is made
// of it, and so can be a page or a tool of your own.
//
//	o := ops.New(pool, "sqlq")
//	failed, err := o.Failed.List(ctx, ops.Filter{Queue: "billing", Limit: 50})
//	…
//	n, err := o.Failed.Replay(ctx, ops.Filter{Queue: "billing", Group: failed[0].Group}, ops.ReplayOptions{})
//
// An [Ops] has a field for each noun: o.Queues, o.Ready, o.Delayed, o.Failed, o.Leases, o.Instances, o.Routes, o.Operations,
// o.Roles and o.Doctor. List, Show, Each and Count look; the other methods change something, and where one of those is called X,
// PreviewX says beforehand what it would do and changes nothing.
//
// # Queues and routes
//
// [Queues.List] and [Queues.Show] say what waits, since when, and who handles it. [Queues.Create], [Queues.Drop],
// [Queues.Pause] and [Queues.Resume] do what they are called. [Routes.List], [Routes.Subscribe], [Routes.Unsubscribe] and
// [Routes.Explain] say and change where events go.
//
// # Messages
//
// A [Filter] chooses, and means the same everywhere.
//
// [Ready.List], [Ready.Each] and [Ready.Tail] look at messages that wait in a queue without taking them; [Ready.Purge] and
// [Ready.Move] take them away; [AppendLine] writes them as lines that [Ready.Import] reads. [Ops.Send] and [Ops.Publish] send
// bodies as they are given, without the Go types of package sqlq.
//
// [Delayed.List], [Delayed.Show], [Delayed.Cancel] and [Delayed.Reschedule] are for messages that wait for their time,
// [Leases.List] and [Leases.Release] for those in the hands of an instance, [Instances.List] for the instances.
// [Ops.Find] says where a message is.
//
// [Failed.Page], [Delayed.Page], [Ready.Page], [Leases.Page], [Instances.Page] and [Operations.Page] return lists page by page, with
// cursors, and with a time budget for searches that no index serves. A change that is given the UpTo of a preview changes what the
// preview saw, and nothing else.
//
// The types of this package encode themselves as the JSON that the command line prints with -o json.
//
// [Failed.Groups] shows the faults, [Failed.List] and [Failed.Each] the failed messages, [Failed.Show] one of them with all
// that is known of it, and [Ops.History] what was done to it. [Failed.Replay] sends them back to their queues, or to another one;
// [Failed.Archive], [Failed.Unarchive], [Failed.Delete] and [Failed.Edit] do the rest.
//
// # Rights, operations, diagnosis
//
// [Roles.Grant] and [Roles.Revoke] set what a database role may do, [Roles.Rights] returns what the role of this connection may do.
// Every change is recorded: [Ops.By] names its author, [Operations.List] lists the changes, and [Operations.Resume] and
// [Operations.Cancel] continue or end a long one.
// [Doctor.Examine] finds what keeps messages from flowing, and [Doctor.Fix] fixes what can be fixed safely.
//
// # Data and settings of others
//
// The settings of the pool's sessions (DateStyle, bytea_output, …) do not matter. A time that is infinite in the database is the
// end of the year 9999, or the beginning of the year 1. Texts, headers and bodies are as their writers left them: escape them
// for where you show them.
//
// # Cost to the database
//
// Nothing here counts or moves without a bound: counts are exact up to CountLimit and estimated above, and what changes
// many messages does so in batches, each in a transaction of its own. A call that is interrupted returns how far it came:
// [Operations.Resume] does the rest, or, where that is not possible, the same call again.
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

// Ops works on the sqlq schema of one database, by what there is in it. It is safe for concurrent use, and needs no closing:
// the pool is the caller's. It and its fields are made by New.
type Ops struct {
	Queues     Queues     // the queues, and what waits in them
	Ready      Ready      // messages that wait in a queue
	Delayed    Delayed    // messages that wait for their time
	Failed     Failed     // messages in the error table
	Leases     Leases     // messages that instances hold by lease
	Instances  Instances  // processes that handle messages
	Routes     Routes     // where messages go: subscriptions and endpoints
	Operations Operations // the changes that operators made and are making
	Roles      Roles      // what database roles may do
	Doctor     Doctor     // what is wrong, and how to fix it

	*core
}

// What an Ops has for each noun. They are made by New.
type (
	// Queues are the queues of the schema.
	Queues struct{ *core }
	// Ready are the messages that wait in queues.
	Ready struct{ *core }
	// Delayed are the messages that wait for their time.
	Delayed struct{ *core }
	// Failed are the messages in the error table, archived ones too.
	Failed struct{ *core }
	// Leases are the messages that instances have by lease.
	Leases struct{ *core }
	// Instances are the processes' parts in endpoints.
	Instances struct{ *core }
	// Routes say where messages go.
	Routes struct{ *core }
	// Operations are the changes that operators made and are making.
	Operations struct{ *core }
	// Roles are the database roles that work with the schema.
	Roles struct{ *core }
	// Doctor finds what keeps messages from flowing.
	Doctor struct{ *core }
)

// core is what all of them share: the database, and the actor for whom changes are recorded.
type core struct {
	pool  pool
	store *query.Schema
	actor Actor
}

// New returns an Ops for the schema of that name in the pool's database. It does not connect; see SchemaVersion.
func New(db *pgxpool.Pool, schema string) *Ops {
	return (&core{pool: newPool(db), store: query.New(schema)}).ops()
}

func (o *core) ops() *Ops {
	return &Ops{Queues{o}, Ready{o}, Delayed{o}, Failed{o}, Leases{o}, Instances{o}, Routes{o}, Operations{o}, Roles{o}, Doctor{o}, o}
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

// OldestProgram returns, of a schema that is newer than this program, the oldest programs that it still serves, by the version that
// they were made for: this one if that is migrations.Latest or less.
func (o *Ops) OldestProgram(ctx context.Context) (int64, error) {
	oldest, err := o.store.OldestLibrary(ctx, o.pool)
	if err != nil {
		return 0, fmt.Errorf("read which programs schema %q serves: %w", o.store.Name(), err)
	}
	return oldest, nil
}

// within runs f in a read-only transaction in which each statement may take d; 0: no limit. It returns false when one took longer.
func (o *core) within(ctx context.Context, d time.Duration, f func(tx pgx.Tx) error) (bool, error) {
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

// rolledBack runs f in a transaction that is always rolled back.
func (o *core) rolledBack(ctx context.Context, f func(tx pgx.Tx) error) error {
	tx, err := o.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // a connection on which it fails is closed
	return f(tx)
}

// wake notifies a sleeping receiver after a commit. It does so even when ctx has just ended, because the messages are
// there; a receiver that is not told finds them at its next poll.
func (o *core) wake(ctx context.Context, channel string) error {
	if channel == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := o.store.Wakeups.Notify(ctx, o.pool, []string{channel}); err != nil {
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
