// Package sqlq carries commands and events between Go services through the PostgreSQL they already have, in tables of
// your own database.
//
// A command goes to the one queue that its type is routed to, an event to every queue that has subscribed to it. An endpoint
// is a named service with a queue of the same name and a handler for each message type; processes that run the same
// endpoint share its messages. A message whose handler fails is retried. If it keeps failing it ends up in the error table, where
// an operator can look at it, fix the cause and replay it.
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
// Elsewhere, in the same transaction as the order's other rows:
//
//	err = client.SendTx(ctx, tx, PlaceOrder{Order: 17}, sqlq.To("sales"))
//
// # Lifecycle
//
// `sqlq migrate up` creates the tables, or package migrate does when the program starts. [Open] returns a [Client], one for
// each process and database, on a pool that stays yours. [Client.Run] handles messages until its context ends, then drains;
// [Client.Start] takes up one endpoint more while others run, until [Running.Stop]. [Client.Close] closes the Client; close the pool after it. A program that only sends does not call Run. All settings of a
// process are in one [Config]; its zero value works. At the end of a service handlers are waited for; [Client.Close] shows how a second signal
// cuts that short. Scripts and tests that want a queue's messages one after the other call [Client.Receive], without an endpoint.
//
// # Sending
//
// A [Message] is any Go type with the method MessageType; one that also has IsEvent is an [Event]. [Client.Send] sends one command,
// [Client.SendMany] sends several, all or none, and [Client.SendTx] sends in your transaction, of pgx or, with [SQLTx], of
// database/sql. [Client.Publish] and [Client.PublishTx] are for events. [Client.SendBatch] and [Client.SendBatchTx] take both, each
// message in an [Envelope] with its own options, and return a [Receipt] for each; [WithReceipt] gets one from a single send. A message
// without a Go type is a [Raw]. A handler sends through its delivery instead: [Incoming.Send], [Incoming.Publish].
//
// A command goes to the queue that [To] names, or else to the endpoint of this process that handles it, or else to the queue that
// Config.Routes names. A [SendOption] defers a message ([Delay], [At]), limits its time to live ([ExpiresIn]) or adds to it
// ([WithHeader], [WithID], [WithCorrelationID]).
//
// # Handling
//
// An [Endpoint] has a name, which is also that of its queue, and a [Handler] for each message type. [Handle] makes a handler that runs
// at least once for each message; [HandleTx] makes one that writes in the transaction in which the message is removed, so that
// its effect in this database happens exactly once. The fields AtMostOnce and Deduplicate of an endpoint choose other
// guarantees. [HandleRaw], [HandleRawTx] and the field Otherwise are for messages without a Go type. These kinds get a [Delivery]: the
// decoded message, and its headers, attempt and ids as an [Incoming]. [HandleBatch] and [HandleBatchTx] get several at once, as a slice of
// [BatchDelivery]. Middleware, in Config and Endpoint, wraps sends, and handlers that get one message.
//
// # Failing
//
// A handler fails by returning an error or by panicking. The endpoint's [RetryPolicy] says how often and when the message is retried;
// [Unrecoverable] and [RetryAfter] override it for one error. After the last attempt the message goes to the error table, with
// the error's text, chain and stack, until an operator replays it. A failure undoes whatever the handler sent, or wrote in its tx.
// [GiveBack] returns the message without counting an attempt. The endpoint's [BreakerPolicy] says when messages that fail one after the
// other are slowed down. What has become of a message is told, after the commit, to the field Settled of its endpoint.
//
// # Running
//
// [Client.Run] creates the queues and subscriptions of its endpoints; [Client.Prepare] does only that, for programs that send
// before they run. Processes that run the same endpoint share its messages; start as many as you like. [Client.Stats] reports what
// this process is doing.
//
// # Operating
//
// Package ops and the command sqlq show queues, failed messages and instances; they replay, pause, and repair.
//
// # Errors
//
// Errors that callers can tell apart with errors.Is have names that begin with Err. Each text says what happened, where, and what to do.
//
// # The path of a message
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
// Rows of a queue's table are only inserted and deleted, never updated. A slow message does not keep a transaction
// open: at Config.HoldLimit it moves to the table leased, and its handler goes on.
//
// # Words
//
//   - message: what is sent; a command or an event. It has a type, headers and a body.
//   - command: asks one receiver to do something (PlaceOrder). It is sent.
//   - event: says what has happened (OrderPlaced). It is published, to any number of subscribers.
//   - endpoint: a named service that handles messages. Its queue has the same name.
//   - instance: one running process of an endpoint.
//   - handler: the function for one message type. Delivery: one message given to it.
//   - attempt: one call of the handler for a message. Immediate retry: the next attempt at once. Delayed retry: later.
//   - settle: end a delivery: complete, retry, delay or fail.
//   - hold: keep a fetched message locked by the open transaction. Lease: keep it in the table leased, in the name of an
//     instance.
//   - error table: where failed messages are. Group: failures with one cause. Replay: move a message back to its queue. Archive:
//     exclude it from replays.
//   - correlation id: what a message is about. Conversation id: the first message of a flow. What a handler sends inherits both.
//   - backlog: the messages that wait in a queue.
//   - window: the time in which an endpoint handles messages with the same id once (Endpoint.Deduplicate). Inbox: the ids that
//     endpoints with a window have handled, or have claimed because they are handling them.
//   - pause: stop handing out the messages of a queue, for all its endpoint's instances, until it is resumed.
//
// # What is guaranteed
//
//   - When Send returns nil the message is committed. From then on it is in exactly one place: in its queue, delayed,
//     leased, in the error table, or settled. Other than that, only its own time to live (ExpiresIn) or an operator removes
//     it.
//   - What SendTx and PublishTx send is stored if and when the caller's transaction commits.
//   - HandleTx: the handler's writes through tx, what it sends through the delivery, and the removal of the message commit
//     together or not at all. So its effect in this database happens exactly once. The handler itself may run more often;
//     what it does elsewhere may happen more often.
//   - Handle: at least once. What it sends through the delivery, and the removal of the message, commit together, after it
//     has returned.
//   - HandleBatch and HandleBatchTx: the same as Handle and HandleTx, for all messages of a call together. If a call fails, each of its
//     messages is handled again by itself, and only then is an attempt counted, unless the handler says which message has failed.
//   - With Endpoint.AtMostOnce: the removal of the message is committed before its handler runs, once or never.
//     With Endpoint.Deduplicate: messages with the same id (WithID) are handled once within a window.
//   - When a process dies, what it held is free as soon as the server notices the lost connection. What it had leased goes
//     back when its death is known: when its connections are gone, or else when its heartbeat is older than Config.LeaseTime.
//   - A message that kills its process is not retried for ever (unless its endpoint is AtMostOnce: then it is gone). For
//     a minute after a crash the instances of the endpoint record what they have in hand before they handle it. A
//     message that was in hand in a crash runs alone, each attempt is counted before it begins, and it fails with
//     ErrCrashed when its attempts are used up.
//   - An event published after a subscription was committed reaches the subscriber. An event without subscribers is not
//     stored anywhere.
//   - A received message that cannot be decoded goes to the error table unchanged.
//   - No instance receives from a paused queue: from a moment after the pause if LISTEN works, otherwise from
//     the next heartbeat on. What is in hand by then is finished. Sending goes on, and so do moves into the queue.
//
// Order is not guaranteed. A queue is read roughly in the order in which its senders committed, to within a few tenths of a second, but
// messages are handled concurrently, retried, and given to other processes.
//
// # What operators see
//
// With each heartbeat, at least every 5 s, an instance writes into its row of the table instance how many messages it has handled and
// failed since it started, how many per second, how many handlers are running, and how many of them for longer than
// Endpoint.SlowAfter; the log names those too. This takes no additional statement. Client.Stats has the same counters for this
// process at any moment. Config.Observer is called at each step of a message, for your own spans and metrics. The leading
// process reads the queues' sequences every 10 s, so the arrival rate is known and senders pay nothing for it.
//
// # Connections
//
// Sending uses the pool that Open is given. Run and Start open connections of their own with the pool's settings, for all endpoints
// together: up to Config.ReceiveConnections for receiving, one to listen and one for housekeeping. The pool's BeforeConnect and AfterConnect are
// called for these too (but not PrepareConn, BeforeAcquire, AfterRelease and BeforeClose, which are about acquiring). Behind a
// transaction pooler, such as PgBouncer, it polls, unless Config.ListenURL takes the last two past the pooler.
//
// # Where to read next
//
// The example of this package, then [Client] and [Config], [Handle] and [HandleTx], [RetryPolicy] and [SendOption]. Package
// migrate creates the schema, package ops is for operators, and package sqlqtest is for your tests. In the repository,
// docs/guarantees.md says what happens when something breaks, docs/wire.md describes the wire format, docs/errors.md lists
// the errors and docs/configuration.md the settings, docs/design.md explains how it works and why, docs/walkthrough.md follows
// one message through the files, and examples/ contains runnable programs.
//
// In the code: client.go, send.go, publish.go and message.go send, and internal/sending stores. group.go starts an endpoint's parts,
// run.go what all endpoints share, and drain.go ends them. instance.go names the parts of an endpoint's instance: look.go says whether to fetch, pace.go and fetch.go how
// many messages, source.go where; hand.go and hand_ends.go keep what is in hand. dispatcher.go shares the receive connections out
// (link.go); receiver.go fetches and holds, gate.go may say "not now", and slot.go and handletx.go hand messages to handlers
// (batch.go, delivery.go, handler.go, codec.go), several at once in chunk.go and chunktx.go (batchhandler.go); observe.go and messagelog.go tell of it. The states of a delivery are in
// delivery_state.go, the ways to have one in hand in custody.go. recoverability.go decides, settlement.go, settle.go
// and settle_batch.go settle, suspect.go keeps apart what may kill a process. internal/wakeup lets receivers sleep and wakes them,
// and look.go is what they do then; internal/presence keeps house; internal/session makes the library's own connections, and its
// pooler.go says what differs behind a transaction pooler; pause.go says how queues are paused. pull.go and pulling.go are Receive. custody_taken.go and inbox.go are
// the guarantees by choice; handmade.go lets sqlqtest make deliveries. The SQL is in internal/store, the tables are in package
// migrations.
package sqlq
