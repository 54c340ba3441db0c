// Package trial is the torture test: it does to sqlq, on purpose and many times a minute, what happens to a messaging
// library on its bad days, and then accounts for every message.
//
// # How it works
//
// A trial starts a PostgreSQL of its own, and sender and receiver processes that are this program again (process.go,
// child.go). Some reach the server through a proxy that the trial controls (proxy.go). Lanes of faults (fault.go) run at
// the same time: on processes, connections, the network, the server, its settings, its tables; and messages are sent that
// kill, hang or break whoever handles them.
//
// A sender says what it is about to send, and what was acknowledged, on a pipe that outlives it (ledger.go). What becomes
// of a message is decided by its key (message.go), so the accountant knows what ought to have happened without being told.
// Handlers write their effects into business tables: Handle in a transaction of its own, where repeats can be counted,
// HandleTx in the receive transaction, where there may be none.
//
// At the end the faults stop, everything drains, and the accountant (account.go) wants each message in exactly one place,
// with the effects that it ought to have. What is wrong is printed with the story of one message (timeline.go).
//
// # What a seed fixes
//
// The order, the kind, the length and the victims of faults, and what the messages do. Not the instant at which a fault
// meets a message: that is the operating system's. So a seed brings a similar trial, not the same.
package trial
