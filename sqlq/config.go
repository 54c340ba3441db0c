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

// Config says how a Client works. The zero value is the default of everything.
type Config struct {
	// Schema holds sqlq's tables. Processes that share queues have the same one.
	// Default: "sqlq". Unit: a name. Cost: none.
	Schema string

	// Routes says to which queue a command goes, by message type. The commands that an endpoint of this process handles
	// need no entry.
	// Default: none; a command that has no route is refused with ErrNoRoute. Unit: type to queue. Cost: none.
	Routes map[string]string

	// Codecs encode and decode bodies. The first one encodes what is sent, or, where Codec.Encodes is set, the first that is for
	// the message; all of them decode, each the content type that it names. JSON by encoding/json needs no entry: it comes last,
	// and reads what has no content type. A message of a content type that none of them reads fails with ErrUndecodable.
	// To change a format, give the new Codec second to all receivers, and then first to the senders.
	// Default: JSON. Unit: Codecs, each of another media type. Cost: their time, for each message that is sent and for each
	// attempt to handle one.
	Codecs []Codec

	// MaxBody bounds an encoded body. A larger one is refused with ErrBodyTooLarge when it is sent; one that was stored all the
	// same, by SQL or by a process with a higher limit, is not read but goes to the error table.
	// Default: 16 MiB. Unit: bytes, at most 1,023 MiB. Cost: memory. A receiver may hold ReceiveConnections × 16 MiB of
	// small bodies, or one larger body for each slot of its endpoints, which do not come at once.
	MaxBody int

	// Logger gets what the library says once: lost connections, crashed instances, failed messages. Of failed messages it names ten
	// of a type in 10 s, and then says how many others there were; a line has the handler's context.
	// Default: slog.Default(). Cost: a line for each of these, none for messages that are handled.
	Logger *slog.Logger

	// HandleMiddleware is put around every handler of every endpoint, the first outermost.
	// Default: none. Cost: its time, for each attempt.
	HandleMiddleware []func(next HandleFunc) HandleFunc

	// SendMiddleware is put around every message that is sent or published, the first outermost.
	// Default: none. Cost: its time, for each message.
	SendMiddleware []func(next SendFunc) SendFunc

	// Observer is told what the Client does, for traces and metrics.
	// Default: none. Unit: funcs, each of which may be nil. Cost: their time, in the way of the messages; see Observer.
	Observer *Observer

	// NoNotify keeps SendTx and PublishTx from calling NOTIFY, which a transaction that is to be prepared (two-phase
	// commit) must not do.
	// Default: off. Cost: sleeping receivers find those messages by polling, up to PollInterval later.
	NoNotify bool

	// ReceiveConnections bounds the connections on which Run receives, for all endpoints of the process together; they
	// are opened as they are needed, and two more listen and do the housekeeping. HandleTx handlers run one at a time on
	// each. When they have had all of them for 20 ms one more is opened, on which the messages of endpoints without such
	// handlers are received, and all that is leased is settled. An endpoint whose HandleTx handlers are slow leaves one, up
	// to half of them, to each other endpoint that has such handlers and none at work. With 1 they take turns: an endpoint
	// with HandleTx handlers waits until another's has ended.
	// Default: 4. Unit: connections. Cost: more: more of the server's connections, and more memory, see MaxBody. Fewer:
	// HandleTx handlers wait for one another.
	ReceiveConnections int

	// BatchLimit bounds the messages that one fetch brings.
	// Default: 1000. Unit: messages, 1 to 10,000. Cost: fewer: more round trips for fast handlers. More: more work that
	// is done again when a process dies.
	BatchLimit int

	// HoldLimit is how long a received batch may keep its transaction open. A message that is still being handled then is
	// moved to the leased table.
	// Default: 100 ms. Unit: duration, at most 5 s. Cost: shorter: more leases, each an insert and a delete. Longer: row
	// locks are held, and a transaction is open, for longer.
	HoldLimit time.Duration

	// LeaseTime is how long after the last heartbeat a process is taken for dead, and its leased messages go to others. A
	// dead connection is noticed sooner.
	// Default: 15 s. Unit: duration, from 1 s. Cost: shorter: more heartbeats, of which there are three in this time and
	// one in 5 s at least, and a process that pauses counts as dead. Longer: messages wait longer where only the
	// heartbeat tells.
	LeaseTime time.Duration

	// DrainTimeout is how long Run waits for running handlers when it ends; then their contexts are cancelled and their
	// messages go back. Close with a context that ends cuts it short.
	// Default: 30 s. Cost: shorter: work is broken off, and done again elsewhere. Longer: Run takes as long to return.
	DrainTimeout time.Duration

	// PollInterval is how often sleeping receivers look although nobody woke them.
	// Default: 30 s where LISTEN works, which is then only a net; 1 s where it does not (behind a transaction pooler),
	// where it is the only means. Cost: a statement each time, for all endpoints of the process together; longer, and
	// messages wait longer where LISTEN does not work.
	PollInterval time.Duration

	// ListenURL is a connection string that leads to the pool's database past a transaction pooler, such as PgBouncer, if
	// the pool goes through one. Run then makes its two connections that need a session there: the one that listens and
	// the one that does the housekeeping. Handlers' messages are still received through the pooler. The pool's BeforeConnect
	// and AfterConnect are not called for these two: what they need stands in the URL.
	// Default: the pool's own connection string; Run finds out whether a transaction pooler stands in between, and if so
	// polls, and says so in the log. Unit: a URL, or keywords and values. Cost: two connections for each process that the
	// pooler does not share out.
	ListenURL string

	// KeepArchived is how long archived messages stay in the error table after they were archived; older ones are removed for
	// good. The leading process does it, so give all processes of the schema the same; its role must be allowed to delete
	// them, as the owner of the schema is.
	// Default: 0, for ever. Unit: duration, from 1 h. Cost: shorter: less to look back at. Longer: disk.
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
		errs = append(errs, fmt.Errorf("LeaseTime is %v: a second is the least, or pauses of the garbage collector and the network count as death", c.LeaseTime))
	}
	if c.HoldLimit > 5*time.Second {
		errs = append(errs, fmt.Errorf("HoldLimit is %v: 5 s is the most, because a transaction that idles longer is ended by the server", c.HoldLimit))
	}
	if c.MaxBody < 0 || c.MaxBody > mostBody {
		errs = append(errs, fmt.Errorf("MaxBody is %d bytes: it is from 1 to %d, because PostgreSQL holds a little less than 1 GiB in a value", c.MaxBody, mostBody))
	}
	if c.KeepArchived != 0 && c.KeepArchived < time.Hour {
		errs = append(errs, fmt.Errorf("KeepArchived is %v: it is an hour at least, or 0 to keep archived messages for ever", c.KeepArchived))
	}
	if c.ReceiveConnections < 0 {
		errs = append(errs, fmt.Errorf("ReceiveConnections is %d: it must not be negative", c.ReceiveConnections))
	}
	if c.BatchLimit < 0 || c.BatchLimit > mostBatch {
		errs = append(errs, fmt.Errorf("BatchLimit is %d: it is from 1 to 10,000", c.BatchLimit))
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

// HandleFunc handles one delivery. Middleware wraps it: it may look, change the context, or return early, and the error
// that it returns decides what becomes of the message.
type HandleFunc func(ctx context.Context, d *Incoming) error

// SendFunc sends one message. Middleware wraps it and may change the message before it calls next: its headers, body and
// id, its type, and the queue that a command goes to. What it makes of them is checked as what the sender gave was.
type SendFunc func(ctx context.Context, m *Outgoing) error

// Outgoing is a message on its way out, as middleware sees it.
type Outgoing struct {
	ID      ID      // by which it is known on its whole way
	Type    string  // the message type
	Queue   string  // where a command goes; empty for an event, and to be left so
	Headers Headers // the sender's; middleware may add to them
	Body    []byte  // encoded
	Message Message // what was given to be sent
}
