package sqlq

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// custody is how the process has a message in hand, from its fetch until its end is stored. There are three:
//
//   - held (custody_held.go): the receive transaction has the row locked. The end commits with the transaction; without it the
//     row is free, and anybody may have the message handled again.
//   - leased (custody_leased.go): the row is among the leased, in the name of an instance, and the heartbeat keeps it there. The
//     end is stored by any connection, later if need be.
//   - taken (custody_taken.go): the row was removed, and that committed, before the handler ran. The process has the only copy.
//
// All that differs between them is asked of the custody; no other code tells them apart. Custodies have no state of their own:
// what they note of a message is in the delivery. A held message may become a leased one while its handler runs.
type custody interface {
	fetching
	ending

	// receive notes in a delivery what the custody must know of a fetched message.
	receive(d *delivery, m *store.Message, w *work)
	// enter takes a batch in hand, dismiss lets a delivery go. The caller has the hand's mutex.
	enter(h *hand, b *batch)
	dismiss(h *hand, d *delivery)
	// begin has the receiver that fetched a batch do its part in handling it, and returns the batch if it is to be held.
	begin(r *receiver, w *work, b *batch) *batch
	// isSingle reports whether a delivery is settled by itself, and not with its batch.
	isSingle() bool
	// mayGoBack reports whether an attempt that the end of the drain has interrupted may be undone.
	mayGoBack() bool
	// unbegun gives up a message that no handler has begun, handlerEnded takes in that one's handler has ended in time. The
	// caller has the hand's mutex.
	unbegun(h *hand, d *delivery)
	handlerEnded(h *hand, d *delivery)
}

// fetching is the part of a custody in the fetch.
type fetching interface {
	// needsOwn reports whether a fetch is to have a transaction of its own, and is not to share the round trip of a settle.
	needsOwn(w *work) bool
	// prepare asks what must be known before the fetch.
	prepare(ctx context.Context, l *link, w *work) error
	// queueFetch adds the fetch to a round trip; the transaction has begun.
	queueFetch(l *link, b *pgx.Batch, w *work, where store.Where, bounds store.Bounds, into *[]store.Message)
	// stayed deals with messages that the fetch has left in the queue for their size.
	stayed(l *link, in *instance, stay []store.Message)
	// foundNone ends a fetch that brought nothing.
	foundNone(ctx context.Context, l *link, w *work)
	// readRest reads what did not come with the fetch: see link.readRest.
	readRest(ctx context.Context, l *link, w *work, ms []store.Message) ([]store.Message, map[int64]error, error)
	// gates adds the gates that such messages must pass.
	gates(in *instance, gates []gate) []gate
	// unready gives back messages that could not be made ready because of an error.
	unready(in *instance, w *work, ms []store.Message)
	// source says where the rows of a fetch are, row which of them is a message's.
	source(w *work) store.From
	row(m *store.Message) int64
}

// ending is the part of a custody in the settle: see settler.
type ending interface {
	setback

	// from says where the row of a delivery is, key which it is.
	from(in *instance, d *delivery) store.From
	key(d *delivery) int64
	// complete adds a delivery to a settlement whose message is removed; queue adds the statements that end what is in it.
	complete(s *settlement, d *delivery)
	queue(s *settlement, b *pgx.Batch) error
	// store stores the ends of deliveries in a transaction of their own, and notes how they have ended. After an error it has
	// noted nothing.
	store(ctx context.Context, l *link, in *instance, ds []*delivery) error
	// mayFail reports whether the server's refusal may be made the delivery's own failure, mayWait whether its message may be
	// handled again after a pause.
	mayFail(d *delivery) bool
	mayWait(d *delivery) bool
	// stuck deals with a delivery of which the server refuses to store anything; it is to be tried again after the pause.
	stuck(in *instance, d *delivery, pause time.Duration, refusal error)
}

// setback is what becomes of deliveries whose ends could not be stored, through no fault of theirs.
type setback interface {
	// isPatient reports whether they may wait for a server that is in trouble, and counts that they have.
	isPatient(in *instance, ds []*delivery) bool
	// putOff is for what has not been stored.
	putOff(in *instance, ds []*delivery)
	// disconnected is putOff after the connection was lost, when it is not known what has been stored.
	disconnected(in *instance, ds []*delivery, err error)
}
