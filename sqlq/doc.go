// Package sqlq is messaging on the PostgreSQL you already run: commands and events between Go services, in tables of
// your own database.
//
// A command goes to the one queue that its type is routed to, an event to every queue that subscribed to it. An endpoint
// is a named service with a queue of that name and a handler for each message type; processes that run the same
// endpoint share its messages. A message whose handler fails is tried again, and then stands in the error table, where
// an operator reads it, mends the fault and replays it.
//
//	type PlaceOrder struct{ Order int }
//
//	func (PlaceOrder) MessageType() string { return "sales.PlaceOrder" }
//
//	client, err := sqlq.Open(ctx, pool, sqlq.Config{})
//	…
//	err = client.Run(ctx, sqlq.Endpoint{Name: "sales", Handlers: []sqlq.Handler{
//		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[PlaceOrder]) error {
//			if _, err := tx.Exec(ctx, `INSERT INTO orders (id) VALUES ($1)`, d.Message.Order); err != nil {
//				return err
//			}
//			return d.Publish(OrderPlaced{d.Message.Order})
//		}),
//	}})
//
// Elsewhere, with the order's other rows in the same transaction:
//
//	err = client.SendTx(ctx, tx, PlaceOrder{Order: 17}, sqlq.To("sales"))
//
// # Lifecycle
//
// The tables are made by `sqlq migrate up`, or by package migrate when the program starts. [Open] makes a [Client], one for
// each process and database, on a pool that stays yours. [Client.Run] handles messages until its context ends, then drains.
// [Client.Close] ends the Client; close the pool after it. A program that only sends does not call Run. One [Config] has all
// settings of a process; its zero value is good.
//
// # Sending
//
// A [Message] is any Go type with the method MessageType; with IsEvent it is an [Event]. [Client.Send] sends a command by
// itself, [Client.SendMany] several, all or none, and [Client.SendTx] in your transaction, of pgx or, with [SQLTx], of
// database/sql. [Client.Publish] and [Client.PublishTx] are for events. [Client.SendBatch] and [Client.SendBatchTx] take both, each
// message in an [Envelope] with its own options, and say by a [Receipt] what was stored; [WithReceipt] does so for one. A message
// without a Go type is a [Raw]. A handler sends through its delivery instead: [Incoming.Send], [Incoming.Publish].
//
// A command goes where [To] says, else to the endpoint of this process that handles it, else where Config.Routes says. A
// [SendOption] defers a message ([Delay], [At]), bounds its life ([ExpiresIn]) or adds to it ([WithHeader], [WithID],
// [WithCorrelationID]).
//
// # Handling
//
// An [Endpoint] has a name, which its queue bears, and a [Handler] for each message type. [Handle] makes one that runs
// at least once for a message; [HandleTx] one that writes in the transaction in which the message is removed, so that
// its effect in this database happens exactly once. An endpoint chooses otherwise by its fields AtMostOnce and
// Deduplicate. [HandleRaw], [HandleRawTx] and the field Otherwise are for messages without a Go type. All get a [Delivery]: the decoded message, and its headers, attempt and ids as an [Incoming].
// Middleware, in Config and Endpoint, goes around handlers and around what is sent.
//
// # Failing
//
// A handler fails by an error or a panic. The endpoint's [RetryPolicy] says how often and when it is tried again;
// [Unrecoverable] and [RetryAfter] say so for one error. After the last attempt the message stands in the error table, with
// the error's text, chain and stack, until an operator replays it. Whatever a handler sent or wrote in its tx is undone with it.
//
// # Running
//
// [Client.Run] makes the queues and subscriptions of its endpoints; [Client.Prepare] does only that, for programs that send
// before they run. Processes that run the same endpoint share its messages; start as many as you like. [Client.Stats] says what
// this process is doing.
//
// # Operating
//
// Package ops and the command sqlq look at queues, failed messages and instances, replay, pause and mend.
//
// # Errors
//
// The errors that callers can tell apart with errors.Is begin with Err. Each text says what happened, where, and what to do.
//
// # The way a message goes
//
//	Send, Publish ──► encode ──► route ──► INSERT into q_<queue>        (the caller's transaction, or a shared one)
//	                                           │ wake a receiver, if one sleeps
//	receiver: fetch a batch, FOR UPDATE SKIP LOCKED; the transaction stays open
//	    ├─► Handle: several at a time, each in a goroutine
//	    ├─► HandleTx: one after the other, in the transaction
//	    └─► settle the whole batch, one round trip, one commit:
//	          handled → DELETE                  what handlers sent → INSERT into its queues
//	          to be retried → delayed           still running at the hold limit → leased
//	          failed → error                    and fetch the next batch in the same round trip
//
// A queue's table is only inserted into and deleted from, never updated. A slow message does not keep a transaction
// open: at Config.HoldLimit it moves to the table leased, and its handler goes on.
//
// # Words
//
//   - message: what is sent; a command or an event. It has a type, headers and a body.
//   - command: asks one receiver to do something (PlaceOrder). It is sent.
//   - event: says what has happened (OrderPlaced). It is published, to any number of subscribers.
//   - endpoint: a named service that handles messages. Its queue bears its name.
//   - instance: one running process of an endpoint.
//   - handler: the function for one message type. delivery: one message handed to it.
//   - attempt: one call of the handler for a message. Immediate retry: the next attempt at once. Delayed retry: later.
//   - settle: end a delivery; complete, retry, or fail.
//   - hold: keep a fetched message locked by the open transaction. Lease: keep it in the table leased, in the name of an
//     instance.
//   - error table: where failed messages are. Group: the failures of one fault. Replay: move one back to its queue. Archive:
//     keep it out of replays.
//   - correlation id: what a message is about. Conversation id: the first message of a flow. Both follow along.
//   - backlog: the messages that wait in a queue.
//   - window: the time in which an endpoint handles messages of one id once (Endpoint.Deduplicate). Inbox: the ids that
//     endpoints with a window have handled, or have claimed because they are handling them.
//   - pause: stop handing out the messages of a queue, for all its endpoint's instances, until it is resumed.
//
// # What is guaranteed
//
//   - When Send returns nil the message is committed. From then on it is in exactly one place: in its queue, among the
//     delayed or the leased, in the error table, or settled. Only its own time to live (ExpiresIn) or an operator removes
//     it otherwise.
//   - What is sent by SendTx and PublishTx is sent if and when the caller's transaction commits.
//   - HandleTx: the handler's writes through tx, what it sends through the delivery, and the removal of the message commit
//     together or not at all. So its effect in this database happens exactly once. The handler itself may run more often;
//     what it does elsewhere may happen more often.
//   - Handle: at least once. What it sends through the delivery, and the removal of the message, commit together, after it
//     has returned.
//   - By choice, Endpoint.AtMostOnce: the removal of the message is committed before its handler runs, once or never.
//     Endpoint.Deduplicate: messages of one id (WithID) are handled once within a window.
//   - When a process dies, what it held is free as soon as the server notices the lost connection; what it had leased goes
//     back when its death is known: with its connections, else when its heartbeat is older than Config.LeaseTime.
//   - A message that kills its process is not tried for ever (unless its endpoint is AtMostOnce: then it is gone). For
//     a minute after a crash the instances of the endpoint write down what they have in hand before they handle it; a
//     message that was in hand in a crash runs alone, each attempt counted before it begins, and is failed with
//     ErrCrashed when its attempts are spent.
//   - An event published after a subscription was committed reaches the subscriber. An event without subscribers is stored
//     nowhere.
//   - A received message that cannot be understood goes to the error table unchanged.
//   - A queue that an operator has paused is not received from: within a moment of the pause where LISTEN works, else from
//     the next heartbeat on. What is in hand by then is finished; sending, and what moves messages into the queue, goes on.
//
// Not guaranteed: an order. A queue is read about in the order in which its senders committed, to some tenths of a second, but
// messages are handled at the same time, retried and handed to other processes.
//
// # What operators see
//
// With each heartbeat, every 5 s at most, an instance writes into its row of the table instance what it has handled and
// failed since it began, how much a second, how many handlers run and how many of them for longer than
// Endpoint.SlowAfter, which the log names too. It costs no statement of its own. Client.Stats counts the same for this
// process at any moment. Config.Observer is told of each step of a message, for spans and metrics of your own. The process that leads reads the queues' sequences every 10 s, so that the rate of arrival is known
// and senders pay nothing for it.
//
// # Connections
//
// Sending uses the pool that Open is given. Run opens its own connections with the pool's settings: up to
// Config.ReceiveConnections to receive on, one to listen and one to keep house. The pool's BeforeConnect and AfterConnect are
// called for these too (not PrepareConn, BeforeAcquire, AfterRelease and BeforeClose, which are about acquiring). Behind a transaction pooler, such as
// PgBouncer, it polls, unless Config.ListenURL leads the last two past it.
//
// # Where to read next
//
// The example of this package, then [Client] and [Config], [Handle] and [HandleTx], [RetryPolicy] and [SendOption]. Package
// migrate makes the schema, package ops is the operator's side, and package sqlqtest tests what you make. In the repository
// docs/guarantees.md says what happens when something breaks, docs/wire.md what a message is on the wire, docs/errors.md lists
// the errors, docs/configuration.md every setting, docs/design.md says why things are as they are, docs/walkthrough.md follows
// one message through the files, and examples/ has programs that run.
//
// In the code: client.go, send.go, publish.go and message.go send, and internal/sending stores. run.go starts an endpoint's parts
// and drain.go ends them. fetch.go says how many messages an instance wants and low.go where a fetch starts; schedule.go shares
// the receive connections out; receiver.go fetches and holds, gate.go may say "not now", and slot.go and handletx.go hand messages
// to handlers (instance.go, batch.go, delivery.go, handler.go, codec.go); observe.go and messagelog.go tell of it. The states of a
// delivery are in delivery_state.go, the ways to have one in hand in custody.go. recoverability.go decides, settlement.go, settle.go
// and settle_batch.go settle, suspect.go keeps apart what may kill a process. internal/wakeup lets receivers sleep and wakes them,
// and look.go is what they do then; internal/presence keeps house; internal/session makes the library's own connections, and its
// pooler.go says what differs behind a transaction pooler; pause.go says how queues are paused. custody_taken.go and inbox.go are
// the guarantees by choice; handmade.go lets sqlqtest make deliveries. The SQL is in internal/store, the tables are in package
// migrations.
package sqlq
