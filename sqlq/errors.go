package sqlq

import (
	"errors"
	"fmt"
	"time"
)

// Errors of Open. A caller tells errors apart with errors.Is; the text of each says where it happened and what to do.
// docs/errors.md in the repository lists them all.
var (
	// ErrSchemaMissing: the schema has no sqlq tables. Make them: sqlq migrate up, or package migrate.
	ErrSchemaMissing = errors.New("the sqlq schema is missing")
	// ErrSchemaOutdated: the schema is older than this library. Migrate it: sqlq migrate up, or package migrate.
	ErrSchemaOutdated = errors.New("the sqlq schema is older than this library")
	// ErrSchemaNewer: the schema was migrated by a newer release, and does not serve this one any more. Use that release of the
	// library.
	ErrSchemaNewer = errors.New("the sqlq schema is newer than this library")
	// ErrTooFewConnections: the pool, or what the server lets the role have, is too small. Returned by Open and Run. Raise
	// the limit that it names, or lower Config.ReceiveConnections.
	ErrTooFewConnections = errors.New("too few connections")
	// ErrUnsafeExecMode: the pool has pgx's mode describe_exec and goes through a connection pooler, which may mix up the
	// statements of several clients in that mode. Take exec, cache_describe or simple_protocol.
	ErrUnsafeExecMode = errors.New("default_query_exec_mode=describe_exec is not safe through a connection pooler: use exec, cache_describe or simple_protocol")
	// ErrEncoding: the database's encoding is neither UTF8 nor SQL_ASCII, or the pool's connections have another
	// client_encoding, so that text would be changed on its way. Take a database that was made with ENCODING 'UTF8', and leave
	// client_encoding alone.
	ErrEncoding = errors.New("text would be changed by an encoding other than UTF8")
)

// ErrPermissionDenied: the database role lacks a privilege. Returned by Open, Run, Prepare and what sends. The error says which
// call of the SQL function grant_role mends it, where one does.
var ErrPermissionDenied = errors.New("the role lacks a privilege")

// Errors of sending and publishing, by a Client or a delivery. The message was not stored.
var (
	// ErrNoRoute: nothing says which queue the command's type goes to. Name it in Config.Routes or with To, or run the
	// endpoint that handles it in this process.
	ErrNoRoute = errors.New("no route")
	// ErrIsEvent: an event was sent, or published To one queue. Publish it to its subscribers.
	ErrIsEvent = errors.New("an event cannot be sent")
	// ErrNotEvent: a command was published. Send it, or make its type an Event.
	ErrNotEvent = errors.New("a command cannot be published")
	// ErrNoQueue: the queue does not exist in the schema. Prepare or Run its endpoint makes it, and sqlq queue create. A
	// message whose handler sends to such a queue fails with it.
	ErrNoQueue = errors.New("no such queue")
	// ErrInvalidName: the name of a queue or message type, a header or a correlation id that is not allowed. The error says
	// what is. Returned by Open and Run too, for names in the Config and endpoints.
	ErrInvalidName = errors.New("invalid name")
	// ErrBodyTooLarge: the encoded body exceeds Config.MaxBody. Send a reference to the content, or raise it. A message that
	// exceeds the receiver's fails with it, unread: raise it there, then replay the message.
	ErrBodyTooLarge = errors.New("body too large")
	// ErrHeadersTooLarge: more than 100 headers, or more than 64 KiB of them. Put the rest into the body. A message with
	// more than 512 KiB of JSON in its headers, which only SQL can store, fails with it, unread.
	ErrHeadersTooLarge = errors.New("headers too large")
	// ErrEncode: the codec could not encode the message, for the reason that the error wraps; or the body of a Raw is not JSON,
	// although its content type says so, or that is no media type.
	ErrEncode = errors.New("message cannot be encoded")
	// ErrInvalidTime: a delay before now or beyond a century, or a time to live that is not positive, or over before the message
	// is ready.
	ErrInvalidTime = errors.New("invalid time")
	// ErrInHandler: a method of the Client was called with a handler's context. Send through the delivery, or say
	// Immediately.
	ErrInHandler = errors.New("sending past the delivery inside of a handler")
	// ErrNoTransaction: SendTx or PublishTx was given a pool, or a connection on which no transaction was begun: the message
	// would be committed by itself. Begin one, or call Send or Publish.
	ErrNoTransaction = errors.New("not a transaction")
	// ErrClosed: the Client was closed. Returned by every method that uses it. Open another one.
	ErrClosed = errors.New("client is closed")
)

// Errors of Run, before any message is handled.
var (
	// ErrInvalidEndpoint: an endpoint that cannot run: no name, no handler, the same name twice, two handlers for one type, a
	// number out of range. Returned by Prepare too. The error lists everything that is wrong.
	ErrInvalidEndpoint = errors.New("invalid endpoint")
	// ErrAlreadyRunning: the Client runs already. Give all endpoints to one Run, or open a second Client.
	ErrAlreadyRunning = errors.New("client runs already")
	// ErrHidden: row security was switched on for the queue's table, as some platforms do for every table, and no policy lets
	// this role see a row, so nothing would ever be received. Switch it off, or run as the table's owner.
	ErrHidden = errors.New("row security hides the queue's messages from this role")
	// ErrListenURLMismatch: Config.ListenURL does not lead to the database that the pool leads to, or not to the same schema.
	ErrListenURLMismatch = errors.New("Config.ListenURL leads to another database than the pool")
)

// Errors that a message can fail with. They are in the error table's chain. Mend the cause, then replay the message.
var (
	// ErrUndecodable: the body is not what its content type says, or does not fit the Go type.
	ErrUndecodable = errors.New("body cannot be decoded")
	// ErrUnknownType: the endpoint has no handler for the message type, and Endpoint.UnknownWait has passed.
	ErrUnknownType = errors.New("no handler for message type")
	// ErrCrashed: the process died while it handled the message, as often as the retry policy has attempts.
	ErrCrashed = errors.New("the process died while handling the message")
	// ErrConnectionLost: the receive connection was lost again and again while a HandleTx handler ran. One that leaves rows
	// open and idles for more than 10 s does this.
	ErrConnectionLost = errors.New("the receive connection was lost while the handler ran")
	// ErrLeftOpen: a HandleTx handler returned while the receive connection was in use: by rows, a batch or a pipeline of tx.Conn()
	// that it did not close, or by a goroutine that it left behind. Close them, and wait for those.
	ErrLeftOpen = errors.New("the handler left results open on the receive connection: close rows, batches and pipelines, and wait for goroutines that use the transaction")
	// ErrTransactionOwned: a HandleTx handler tried to end the receive transaction. Returned by the tx that it was given. An
	// error that the handler returns undoes its work, nil commits it.
	ErrTransactionOwned = errors.New("the receive transaction is committed by sqlq, not by a handler")
	// ErrSQLErrorIgnored: a HandleTx handler returned nil although a statement of it failed, which ended its transaction. Return
	// that error, or put what may fail between tx.Begin and Rollback.
	ErrSQLErrorIgnored = errors.New("handler returned nil after an SQL error")
)

// Unrecoverable marks an error as one that no retry can mend: the message goes to the error table at once.
func Unrecoverable(err error) error {
	if err == nil {
		return nil
	}
	return &unrecoverable{err}
}

type unrecoverable struct{ error }

func (e *unrecoverable) Unwrap() error { return e.error }

// RetryAfter names the time of the next attempt: the message is retried after d, instead of when the retry policy would.
// It spends an attempt; after the policy's last one the message fails all the same.
func RetryAfter(d time.Duration, err error) error {
	if err == nil {
		return nil
	}
	return &retryAfter{err, d}
}

type retryAfter struct {
	error
	after time.Duration
}

func (e *retryAfter) Unwrap() error { return e.error }

// errGoexit is the error of a handler that neither returned nor panicked.
var errGoexit = errors.New("the handler ended its goroutine (runtime.Goexit, which t.Fatal calls) instead of returning")

// panicked is the error of a handler that panicked.
type panicked struct {
	value any
	stack string
}

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// Unwrap lets errors.Is find the error that was panicked with.
func (p *panicked) Unwrap() error {
	err, _ := p.value.(error)
	return err
}
