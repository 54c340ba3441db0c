package sqlq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Config configures a Client. The zero value of each field is its default.
type Config struct {
	// Schema contains sqlq's tables. Processes that share queues use the same one.
	// Default: "sqlq". Unit: a name. Cost: none.
	Schema string

	// Routes says to which queue a command goes, by message type. Commands that an endpoint of this process handles
	// need no entry.
	// Default: none; a command without a route is refused with ErrNoRoute. Unit: type to queue. Cost: none.
	Routes map[string]string

	// Codecs encode and decode bodies. The first one that accepts a message (see Codec.Encodes) encodes it. All of them decode, each
	// its own content type. JSON by encoding/json needs no entry: it comes last, and reads bodies without a content type. A message
	// whose content type none of them reads fails with ErrUndecodable. To change a format, first add the new Codec in second place to
	// all receivers, then put it first in the senders.
	// Default: JSON. Unit: Codecs, each with a different media type. Cost: their time, for each message sent and for each
	// attempt to handle one.
	Codecs []Codec

	// MaxBody limits the size of an encoded body. A larger one is refused with ErrBodyTooLarge when it is sent. One that was stored
	// anyway, by SQL or by a process with a higher limit, is not read but goes to the error table.
	// Default: 16 MiB. Unit: bytes, at most 1,023 MiB. Cost: memory. A process may hold ReceiveConnections × 16 MiB of
	// small bodies, or one larger body for each slot of its endpoints, fetched one by one.
	MaxBody int

	// Logger gets what the library logs: lost connections, crashed instances, failed messages. It names at most ten failed messages
	// of a type in 10 s, and then says how many more there were; these lines have the handler's context.
	// Default: slog.Default(). Cost: a line for each of these, none for messages that are handled.
	Logger *slog.Logger

	// HandleMiddleware wraps every handler of every endpoint; the first is the outermost. Batch handlers are not wrapped: see
	// Batch.NoMiddleware.
	// Default: none. Cost: its time, for each attempt.
	HandleMiddleware []func(next HandleFunc) HandleFunc

	// SendMiddleware wraps every send and publish; the first is the outermost.
	// Default: none. Cost: its time, for each message.
	SendMiddleware []func(next SendFunc) SendFunc

	// Observer is called with what the Client does, for traces and metrics.
	// Default: none. Unit: funcs, each of which may be nil. Cost: their time, for which messages wait; see Observer.
	Observer *Observer

	// NoNotify keeps SendTx and PublishTx from calling NOTIFY, which is not allowed in a transaction that will be prepared (two-phase
	// commit).
	// Default: off. Cost: sleeping receivers find those messages by polling, up to PollInterval later.
	NoNotify bool

	// ReceiveConnections is the maximum number of connections on which Run receives, for all endpoints of the process together. They
	// are opened when needed; two more listen and do the housekeeping. HandleTx handlers run one at a time on
	// each. When they have occupied all of them for 20 ms, one more is opened, which receives messages for endpoints without such
	// handlers or whose handlers are known to be quick, and settles leased ones. An endpoint whose HandleTx handlers are slow leaves one,
	// up to half of them, to each other endpoint that has such handlers and none running. With 1 slow ones take turns: an endpoint
	// waits until another's handler has ended.
	// Default: 4. Unit: connections. Cost: more: more of the server's connections, and more memory, see MaxBody. Fewer:
	// HandleTx handlers wait for one another.
	ReceiveConnections int

	// BatchLimit is the maximum number of messages in one fetch.
	// Default: 1000. Unit: messages, 1 to 10,000. Cost: fewer: more round trips for fast handlers. More: more work
	// is repeated when a process dies.
	BatchLimit int

	// HoldLimit is how long a received batch may keep its transaction open. A message that is still being handled then
	// moves to the leased table.
	// Default: 100 ms. Unit: duration, at most 5 s. Cost: shorter: more leases, each an insert and a delete. Longer: row
	// locks are held, and a transaction is open, for longer.
	HoldLimit time.Duration

	// LeaseTime is how long after its last heartbeat a process is taken for dead, and its leased messages go to others. A
	// dead connection is noticed sooner.
	// Default: 15 s. Unit: duration, from 1 s. Cost: shorter: more heartbeats (three in this time, and at least one every
	// 5 s), and a process that pauses is taken for dead. Longer: messages wait longer if only the
	// heartbeat shows the death.
	LeaseTime time.Duration

	// DrainTimeout is how long Run waits for running handlers when it ends; then their contexts are cancelled and their
	// messages go back. Close cuts it short if its context ends.
	// Default: 30 s. Cost: shorter: work is interrupted, and repeated elsewhere. Longer: Run may take that long to return.
	DrainTimeout time.Duration

	// PollInterval is how often sleeping receivers look for messages without being woken.
	// Default: 30 s if LISTEN works, as a safety net; 1 s if it does not (behind a transaction pooler),
	// as the only means. Cost: a statement each time, for all endpoints of the process together. Longer:
	// messages wait longer if LISTEN does not work.
	PollInterval time.Duration

	// ListenURL is a connection string that bypasses the transaction pooler, such as PgBouncer, if the pool goes through one, and
	// leads to the same database. Run then opens its two connections that need a session there: the one that listens and
	// the one for housekeeping. Messages are still received through the pooler. The pool's BeforeConnect
	// and AfterConnect are not called for these two: put what they need into the URL.
	// Default: the pool's own connection string; Run detects a transaction pooler, and then polls and
	// logs that. Unit: a URL, or keywords and values. Cost: two connections per process that the
	// pooler does not share.
	ListenURL string

	// KeepArchived is how long archived messages stay in the error table after they were archived; older ones are removed
	// permanently. The leading process does it, so use the same value in all processes of the schema. Its role must be allowed to
	// delete them, as the owner of the schema is.
	// Default: 0, for ever. Unit: duration, from 1 h. Cost: shorter: less history. Longer: disk.
	KeepArchived time.Duration

	// observing is the Observer, ready for use; nil: there is none.
	observing *observing
	// messages gets what the Logger is told of single messages.
	messages *messageLog
	// codecs are the Codecs, ready for use.
	codecs *codecs
	// strandedAfter is how old a lease must be before its instance is asked whether it knows it: longer than the round
	// trip that made it may take.
	strandedAfter time.Duration
	// standbyEvery is how often an instance that is on call tries to take the watch.
	standbyEvery time.Duration
	// rand returns a number in [0,1) for jitter; tests fix it.
	rand func() float64
	// host and version name this process in the instance table.
	host, version string
}

// maxDelay bounds delays and times to live.
const maxDelay = 100 * 365 * 24 * time.Hour

func (c Config) withDefaults() Config {
	if c.Schema == "" {
		c.Schema = "sqlq"
	}
	c.codecs = newCodecs(c.Codecs)
	if c.MaxBody == 0 {
		c.MaxBody = 16 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.observing, c.messages = newObserving(c.Observer, c.Logger), newMessageLog(c.Logger)
	if c.ReceiveConnections == 0 {
		c.ReceiveConnections = 4
	}
	if c.BatchLimit == 0 {
		c.BatchLimit = 1000
	}
	if c.HoldLimit == 0 {
		c.HoldLimit = 100 * time.Millisecond
	}
	if c.LeaseTime == 0 {
		c.LeaseTime = 15 * time.Second
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = 30 * time.Second
	}
	if c.strandedAfter == 0 {
		c.strandedAfter = time.Minute
	}
	if c.standbyEvery == 0 {
		c.standbyEvery = time.Second
	}
	if c.rand == nil {
		c.rand = defaultRand
	}
	if c.host == "" {
		c.host = hostName()
	}
	if c.version == "" {
		c.version = programVersion()
	}
	return c
}

// clone copies what the caller could go on changing while the Client uses it.
func (c Config) clone() Config {
	c.Routes = maps.Clone(c.Routes)
	c.Codecs = slices.Clone(c.Codecs)
	c.HandleMiddleware = slices.Clone(c.HandleMiddleware)
	c.SendMiddleware = slices.Clone(c.SendMiddleware)
	return c
}

// mostBatch is the most that Config.BatchLimit can be.
const mostBatch = 10_000

// mostBody is the most that Config.MaxBody can be, in bytes.
const mostBody = 1<<30 - 1<<20

func (c Config) validate() error {
	var errs []error
	for _, t := range []struct {
		name string
		time.Duration
	}{{"HoldLimit", c.HoldLimit}, {"DrainTimeout", c.DrainTimeout}, {"PollInterval", c.PollInterval}} {
		if t.Duration < 0 {
			errs = append(errs, fmt.Errorf("%s is %v: it must not be negative", t.name, t.Duration))
		}
	}
	if c.LeaseTime < time.Second {
		errs = append(errs, fmt.Errorf("LeaseTime is %v: it must be at least 1 s, or pauses of the garbage collector and the network would be taken for crashes", c.LeaseTime))
	}
	if c.HoldLimit > 5*time.Second {
		errs = append(errs, fmt.Errorf("HoldLimit is %v: it must be at most 5 s, because the server ends a transaction that is idle for longer", c.HoldLimit))
	}
	if c.MaxBody < 0 || c.MaxBody > mostBody {
		errs = append(errs, fmt.Errorf("MaxBody is %d bytes: it must be from 1 to %d, because a value in PostgreSQL is limited to a little less than 1 GiB", c.MaxBody, mostBody))
	}
	if c.KeepArchived != 0 && c.KeepArchived < time.Hour {
		errs = append(errs, fmt.Errorf("KeepArchived is %v: it must be at least 1 h, or 0 to keep archived messages for ever", c.KeepArchived))
	}
	if c.ReceiveConnections < 0 {
		errs = append(errs, fmt.Errorf("ReceiveConnections is %d: it must not be negative", c.ReceiveConnections))
	}
	if c.BatchLimit < 0 || c.BatchLimit > mostBatch {
		errs = append(errs, fmt.Errorf("BatchLimit is %d: it must be from 1 to 10,000", c.BatchLimit))
	}
	if err := validateCodecs(c.Codecs); err != nil {
		errs = append(errs, err)
	}
	if c.ListenURL != "" {
		if _, err := pgxpool.ParseConfig(c.ListenURL); err != nil {
			errs = append(errs, fmt.Errorf("ListenURL: %w", err))
		}
	}
	for _, typ := range slices.Sorted(maps.Keys(c.Routes)) {
		if err := errors.Join(checkTypeName(typ), checkQueueName(c.Routes[typ])); err != nil {
			errs = append(errs, fmt.Errorf("in Routes: %w", err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("invalid Config: %w", err)
	}
	return nil
}

// HandleFunc handles one delivery. Middleware wraps it: it may inspect the delivery, change the context, or return early, and the error
// that it returns decides what happens to the message.
type HandleFunc func(ctx context.Context, d *Incoming) error

// SendFunc sends one message. Middleware wraps it and may change the message before it calls next: its headers, body and
// id, its type, and the queue that a command goes to. The changes are checked like the sender's own values.
type SendFunc func(ctx context.Context, m *Outgoing) error

// Outgoing is a message on its way out, as middleware sees it.
type Outgoing struct {
	ID      ID      // stays the same wherever the message goes
	Type    string  // the message type
	Queue   string  // where a command goes; empty for an event, and must stay so
	Headers Headers // the sender's; middleware may add to them
	Body    []byte  // the encoded message
	Message Message // the message that the caller passed
}
