package sqlq

import (
	"errors"
	"fmt"
	"time"
)

// Errors of Open. A caller tells errors apart with errors.Is; the text of each says where it happened and what to do.
// docs/errors.md in the repository lists them all.
var (
	// ErrSchemaMissing: the schema has no sqlq tables. Create them: sqlq migrate up, or package migrate.
	ErrSchemaMissing = errors.New("the sqlq schema is missing")
	// ErrSchemaOutdated: the schema is older than this library. Migrate it: sqlq migrate up, or package migrate.
	ErrSchemaOutdated = errors.New("the sqlq schema is older than this library")
	// ErrSchemaNewer: a newer release has migrated the schema, and it no longer serves this one. Use that release of the
	// library.
	ErrSchemaNewer = errors.New("the sqlq schema is newer than this library")
	// ErrTooFewConnections: the pool is too small, or the server allows the role too few connections. Returned by Open and Run. Raise
	// the limit that it names, or lower Config.ReceiveConnections.
	ErrTooFewConnections = errors.New("too few connections")
	// ErrUnsafeExecMode: the pool has pgx's mode describe_exec and goes through a connection pooler, which may mix up the
	// statements of several clients in that mode. Use exec, cache_describe or simple_protocol.
	ErrUnsafeExecMode = errors.New("default_query_exec_mode=describe_exec is not safe through a connection pooler: use exec, cache_describe or simple_protocol")
	// ErrEncoding: the database's encoding is neither UTF8 nor SQL_ASCII, or the pool's connections have another
	// client_encoding, so that text would be changed on the way. Use a database created with ENCODING 'UTF8', and leave
	// client_encoding alone.
	ErrEncoding = errors.New("text would be changed by an encoding other than UTF8")
)

// ErrPermissionDenied: the database role lacks a privilege. Returned by Open, Run, Prepare, and by sending and publishing. The error
// contains the call of the SQL function grant_role that fixes it, if one does.
var ErrPermissionDenied = errors.New("the role lacks a privilege")

// Errors of sending and publishing, by a Client or a delivery. The message was not stored.
var (
	// ErrNoRoute: no route says which queue the command goes to. Add one to Config.Routes, use To, or run the
	// endpoint that handles the command in this process.
	ErrNoRoute = errors.New("no route")
	// ErrIsEvent: an event was sent, or published To one queue. Publish it without To.
	ErrIsEvent = errors.New("an event cannot be sent")
	// ErrNotEvent: a command was published. Send it, or make its type an Event.
	ErrNotEvent = errors.New("a command cannot be published")
	// ErrNoQueue: the queue does not exist in the schema. Prepare or Run of its endpoint creates it, and so does sqlq queue create. A
	// message whose handler sends to such a queue fails with this error. Run, Start and Prepare return it for an endpoint with
	// MustExist, and Receive, which creates no queue.
	ErrNoQueue = errors.New("no such queue")
	// ErrInvalidName: the name of a queue, message type or header, or a correlation id, is not allowed. The error says
	// what is. Open and Run return it too, for names in the Config and endpoints.
	ErrInvalidName = errors.New("invalid name")
	// ErrBodyTooLarge: the encoded body exceeds Config.MaxBody. Send a reference to the content, or raise the limit. A message that
	// exceeds the receiver's limit fails with this error, unread: raise the limit there, then replay the message.
	ErrBodyTooLarge = errors.New("body too large")
	// ErrHeadersTooLarge: more than 100 headers, or more than 64 KiB of them. Put the rest into the body. A message with
	// more than 512 KiB of JSON in its headers, which only SQL can store, fails with this error, unread.
	ErrHeadersTooLarge = errors.New("headers too large")
	// ErrEncode: the codec could not encode the message, and the error wraps the reason; or the content type of a Raw is not a media
	// type, or says that the body is JSON and it is not.
	ErrEncode = errors.New("message cannot be encoded")
	// ErrInvalidTime: the delay is negative or longer than a century, or the time to live is not positive or ends before the message
	// is ready.
	ErrInvalidTime = errors.New("invalid time")
	// ErrInHandler: a method of the Client was called with a handler's context. Send through the delivery, or pass
	// Immediately.
	ErrInHandler = errors.New("sending past the delivery inside a handler")
	// ErrNoTransaction: SendTx or PublishTx was given a pool, or a connection without an open transaction, so the message
	// would be committed by itself. Begin a transaction, or call Send or Publish.
	ErrNoTransaction = errors.New("not a transaction")
	// ErrClosed: the Client was closed. Returned by every method that uses it. Open another one.
	ErrClosed = errors.New("client is closed")
)

// Errors of Run and Start, before any message is handled.
var (
	// ErrInvalidEndpoint: an endpoint cannot run: no name, no handler, the same name twice, two handlers for one type, a
	// number out of range. Prepare returns it too. The error lists everything that is wrong.
	ErrInvalidEndpoint = errors.New("invalid endpoint")
	// ErrAlreadyRunning: the Client already runs an endpoint of that name, or still drains it: stop that one first, or raise its
	// Concurrency. From Run also: another Run is under way. Pass all endpoints to one Run, or add them with Start.
	ErrAlreadyRunning = errors.New("already running")
	// ErrHidden: row security was switched on for the queue's table, as some platforms do for every table, and no policy lets
	// this role see its rows, so no message would ever be received. Switch it off, or run as the table's owner.
	ErrHidden = errors.New("row security hides the queue's messages from this role")
	// ErrListenURLMismatch: Config.ListenURL leads to another database than the pool, or to another schema.
	ErrListenURLMismatch = errors.New("Config.ListenURL leads to another database than the pool")
)

// Errors of a Received message.
var (
	// ErrSettled: Done, Fail or GiveBack was called for the message before. Call one of them, once.
	ErrSettled = errors.New("the message's end was asked for before")
	// ErrLeaseLost: the message was not the receiver's any more, because it was given back when the Client closed, or its connection
	// or lease was lost. It is delivered again, unless its end was committed just then.
	ErrLeaseLost = errors.New("the message is not the receiver's any more")
)

// Errors that a message can fail with. They are in its chain in the error table. Fix the cause, then replay the message.
var (
	// ErrUndecodable: the body or headers cannot be decoded, or do not fit the Go type, or no codec reads the content type.
	ErrUndecodable = errors.New("body cannot be decoded")
	// ErrUnknownType: the endpoint has no handler for the message type, and Endpoint.UnknownWait has passed.
	ErrUnknownType = errors.New("no handler for message type")
	// ErrCrashed: the process died while it handled the message, as many times as the retry policy has attempts.
	ErrCrashed = errors.New("the process died while handling the message")
	// ErrConnectionLost: the receive connection was lost repeatedly while a HandleTx handler ran. A handler that leaves rows
	// open and does nothing for more than 10 s causes this.
	ErrConnectionLost = errors.New("the receive connection was lost while the handler ran")
	// ErrLeftOpen: a HandleTx handler returned while the receive connection was still in use: by rows, a batch or a pipeline of
	// tx.Conn() that it did not close, or by a goroutine that it left behind. Close them, and wait for the goroutine.
	ErrLeftOpen = errors.New("the handler left results open on the receive connection: close rows, batches and pipelines, and wait for goroutines that use the transaction")
	// ErrTransactionOwned: a HandleTx handler tried to end the receive transaction. Its tx returns this error. Return
	// an error from the handler to undo its work, nil to commit it.
	ErrTransactionOwned = errors.New("the receive transaction is committed by sqlq, not by a handler")
	// ErrSQLErrorIgnored: a HandleTx handler returned nil although one of its statements had failed, which aborted its transaction.
	// Return that error, or wrap what may fail in a nested transaction (tx.Begin).
	ErrSQLErrorIgnored = errors.New("handler returned nil after an SQL error")
)

// Unrecoverable marks an error as one that no retry can fix: the message goes to the error table at once.
func Unrecoverable(err error) error {
	if err == nil {
		return nil
	}
	return &unrecoverable{err}
}

type unrecoverable struct{ error }

func (e *unrecoverable) Unwrap() error { return e.error }

// RetryAfter sets the time of the next attempt: the message is retried after d, instead of when the retry policy says.
// It uses up an attempt: if it was the policy's last, the message fails.
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
