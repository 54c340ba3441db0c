package sqlq

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"

	"github.com/jackc/pgx/v5"
)

// Handler handles the messages of one type. [Handle], [HandleTx], [HandleBatch], [HandleBatchTx], [HandleRaw] and [HandleRawTx] make one.
type Handler struct {
	messageType string // "": it takes every type that has no handler of its own
	event       bool
	raw         bool // made by HandleRaw or HandleRawTx
	inTx        bool // wants the receive transaction
	run         func(ctx context.Context, tx pgx.Tx, in *Incoming) error
	batching    *batching // nil: it is given one message at a time
}

// Delivery is one message given to one handler: decoded, and as an Incoming.
type Delivery[T Message] struct {
	*Incoming
	Message T // decoded
}

// Handle makes a Handler for messages of type T. It runs at least once for each message: if the process or its
// connection dies, the message is handled again (unless [Endpoint].AtMostOnce is set). The error that the function returns decides what
// happens to the message: nil removes it and sends what the function sent through d; any other leaves it to the endpoint's
// [RetryPolicy] (see [Unrecoverable] and [RetryAfter]), and nothing is sent. A panic counts as an error.
//
// ctx is cancelled only when the process has been draining for longer than Config.DrainTimeout, or Close cuts the drain short.
func Handle[T Message](handle func(ctx context.Context, d *Delivery[T]) error) Handler {
	return newHandler(false, func(ctx context.Context, _ pgx.Tx, d *Delivery[T]) error { return handle(ctx, d) })
}

// HandleTx makes a Handler for messages of type T whose effect in the queue's database happens exactly once: the removal of
// the message, what the function writes in tx and what it sends through d commit together or not at all. The error that it
// returns means the same as for [Handle]. A function that returns nil after a failed statement fails with ErrSQLErrorIgnored, and one
// that tries to end tx fails with ErrTransactionOwned.
//
// Several messages may share the transaction, one after another. A failure undoes only its own message's work, and a message
// that fails after others runs once more alone before an attempt is counted. tx refuses Commit and Rollback, and everything else
// once the function has returned. If the SQL of a handler changes settings, creates temporary objects or leaves something else in the
// session, it gets a transaction of its own, so that other messages are not affected; if functions or triggers do
// that, see docs/guarantees.md, "Clean sessions", and Endpoint.TxBatch. tx.Conn() costs a new connection for
// each message. Row locks that the handler takes are held until the batch commits. So if a lock cannot be acquired
// within a millisecond, the batch ends early and the function runs again, first in the next batch, without
// counting an attempt. Effects outside of the database may therefore happen more than once.
func HandleTx[T Message](handle func(ctx context.Context, tx pgx.Tx, d *Delivery[T]) error) Handler {
	return newHandler(true, handle)
}

func newHandler[T Message](inTx bool, handle func(context.Context, pgx.Tx, *Delivery[T]) error) Handler {
	var zero T
	goType := reflect.TypeFor[T]()
	if goType.Kind() == reflect.Interface {
		panic(fmt.Sprintf("sqlq: a handler needs a concrete message type, %v is an interface", goType))
	}
	if goType == reflect.TypeFor[Raw]() || goType == reflect.TypeFor[*Raw]() {
		panic("sqlq: the Go type Raw has no message type: use HandleRaw or HandleRawTx, which are given one")
	}
	_, event := any(zero).(Event)
	return Handler{
		messageType: zero.MessageType(),
		event:       event,
		inTx:        inTx,
		run: func(ctx context.Context, tx pgx.Tx, in *Incoming) error {
			d := &Delivery[T]{Incoming: in}
			if err := decodeMessage(in, goType, &d.Message); err != nil {
				return err
			}
			in.ctx = ctx
			return handle(ctx, tx, d)
		},
	}
}

// decodeMessage decodes a message of a Go type; into a new one, if that is a pointer.
func decodeMessage[T Message](in *Incoming, goType reflect.Type, m *T) error {
	if goType.Kind() != reflect.Pointer {
		return in.decode(m)
	}
	*m = reflect.New(goType.Elem()).Interface().(T)
	return in.decode(*m)
}

// call runs f and turns a panic into an error with its stack; also the panic of an error that cannot be looked at, such
// as a nil pointer in an error interface.
func call(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicked{value: v, stack: string(debug.Stack())}
		}
	}()
	if err = f(); err != nil {
		for _, link := range unwrapAll(err) {
			_ = link.Error()
		}
		_ = errors.Is(err, ErrUndecodable)
	}
	return err
}

// despiteExits runs f in a goroutine of its own, and once more in another whenever a handler has ended that one; f goes on
// where it was.
func despiteExits(f func()) {
	for returned := false; !returned; {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			f()
			returned = true
		}()
		<-ended
	}
}
