package sqlq

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"reflect"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
)

// Handler handles the messages of one type. [Handle], [HandleTx], [HandleRaw] and [HandleRawTx] make one.
type Handler struct {
	messageType string // "": of every type that has no other
	event       bool
	raw         bool // its messages have no Go type
	inTx        bool // wants the receive transaction
	run         func(ctx context.Context, tx pgx.Tx, in *Incoming) error
}

// Delivery is one message handed to one handler: decoded, and as it came.
type Delivery[T Message] struct {
	*Incoming
	Message T // decoded
}

// Handle makes a Handler for messages of type T. It runs at least once for each message: when the process or its
// connection dies, somebody runs it again (unless [Endpoint].AtMostOnce is set). The error that it returns decides what
// becomes of the message: nil removes it and sends what the handler sent through d; any other leaves it to the endpoint's
// [RetryPolicy] (see [Unrecoverable] and [RetryAfter]), and nothing is sent. A panic is an error.
//
// ctx is cancelled only when the process has been draining for longer than Config.DrainTimeout.
func Handle[T Message](handle func(ctx context.Context, d *Delivery[T]) error) Handler {
	return newHandler(false, func(ctx context.Context, _ pgx.Tx, d *Delivery[T]) error { return handle(ctx, d) })
}

// HandleTx makes a Handler for messages of type T that works exactly once in the database of the queue: the removal of
// the message, what the handler writes in tx and what it sends through d commit together or not at all. The error that it
// returns means what it means for [Handle]. A handler that goes on after a failed statement fails with ErrSQLErrorIgnored, one
// that ends tx with ErrTransactionOwned.
//
// Several messages may share the transaction, one after the other; a failure undoes only its own message's work, and a message
// that fails behind others runs once alone before an attempt is counted. tx refuses Commit and Rollback, and when the handler
// has returned everything else. A handler whose SQL changes settings, makes temporary objects, or leaves something in the
// session by other means has a transaction of its own, and nobody else meets what it did; where functions or triggers do
// that behind its back, see docs/guarantees.md, "Clean sessions", and Endpoint.TxBatch. tx.Conn() costs a new connection for
// each message. Row locks that the handler takes last until the batch commits, so a lock that is not to
// be had within a millisecond ends the batch early and the handler is run again, first in the next one, without an
// attempt being counted. Effects outside of the database may therefore happen more than once.
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
		panic("sqlq: a Raw has no type by itself: make its handler with HandleRaw or HandleRawTx, which name one")
	}
	_, event := any(zero).(Event)
	return Handler{
		messageType: zero.MessageType(),
		event:       event,
		inTx:        inTx,
		run: func(ctx context.Context, tx pgx.Tx, in *Incoming) error {
			d := &Delivery[T]{Incoming: in}
			into := any(&d.Message)
			if goType.Kind() == reflect.Pointer {
				d.Message = reflect.New(goType.Elem()).Interface().(T)
				into = d.Message
			}
			if err := in.decode(into); err != nil {
				return err
			}
			in.ctx = ctx
			return handle(ctx, tx, d)
		},
	}
}

// maxOthers bounds the types without a Handler of their own that have a breaker each.
const maxOthers = 1_000

// handlings are the handlers of an instance, by the type of what they handle. What comes to Endpoint.Otherwise has a breaker for each
// type too, made when the first of it comes: what is wrong with one says nothing about the others.
type handlings struct {
	byType    map[string]*handling // unchanged once it is made
	otherwise *Handler             // nil: there is none
	limit     int                  // of their breakers

	mu       sync.Mutex
	others   map[string]*handling // of otherwise; at most maxOthers
	overflow *handling            // of all further types; its breaker stays closed
}

// newHandlings returns those of an endpoint that has been validated.
func newHandlings(e *Endpoint) *handlings {
	hs := &handlings{byType: map[string]*handling{}, limit: max(10, e.Concurrency), others: map[string]*handling{}}
	for i := range e.Handlers {
		hs.byType[e.Handlers[i].messageType] = &handling{Handler: &e.Handlers[i], breaker: breaker{limit: hs.limit}}
	}
	if e.Otherwise.run != nil {
		hs.otherwise = &e.Otherwise
		hs.overflow = &handling{Handler: hs.otherwise, breaker: breaker{limit: math.MaxInt}}
	}
	return hs
}

// of returns what handles a type; nil if nothing does.
func (hs *handlings) of(messageType string) *handling {
	if h := hs.byType[messageType]; h != nil || hs.otherwise == nil {
		return h
	}
	hs.mu.Lock()
	defer hs.mu.Unlock()
	h := hs.others[messageType]
	switch {
	case h != nil:
		return h
	case len(hs.others) >= maxOthers:
		return hs.overflow
	}
	own := *hs.otherwise
	own.messageType = messageType
	h = &handling{Handler: &own, breaker: breaker{limit: hs.limit}}
	hs.others[messageType] = h
	return h
}

// all yields each handling whose breaker may open.
func (hs *handlings) all() iter.Seq[*handling] {
	return func(yield func(*handling) bool) {
		for _, h := range hs.byType {
			if !yield(h) {
				return
			}
		}
		hs.mu.Lock()
		others := slices.Collect(maps.Values(hs.others))
		hs.mu.Unlock()
		for _, h := range others {
			if !yield(h) {
				return
			}
		}
	}
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
