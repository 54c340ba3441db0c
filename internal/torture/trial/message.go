package trial

import "time"

// A key names a message, or a family of them: the number of the process that sent it, then a count. What a handler sends on
// has the key of the message that it handled.
type key int64

const keyBits = 24 // for the count

func firstKey(process int) key { return key(process) << keyBits }

// work is the body of every message.
type work struct {
	K   key
	Do  deed   `json:",omitempty"` // only of poison, else the key tells
	Pad string `json:",omitempty"`
}

// The messages. An event has two subscribers, one with Handle and one with HandleTx.
type (
	plain  struct{ work }
	exact  struct{ work }
	onward struct{ work } // sent by handlers of the two above
	event  struct{ work }
	poison struct{ work }
	most   struct{ work } // handled at most once
	once   struct{ work } // each is sent twice with its id
)

func (plain) MessageType() string  { return "torture.Plain" }
func (exact) MessageType() string  { return "torture.Exact" }
func (onward) MessageType() string { return "torture.Onward" }
func (event) MessageType() string  { return "torture.Happened" }
func (poison) MessageType() string { return "torture.Poison" }
func (most) MessageType() string   { return "torture.Most" }
func (once) MessageType() string   { return "torture.Once" }
func (event) IsEvent()             {}

// Queues, which are also the kinds of effects.
const (
	plainQueue  = "plain"  // Handle
	exactQueue  = "exact"  // HandleTx
	onwardQueue = "onward" // HandleTx
	hearsQueue  = "hears"  // subscriber, Handle
	booksQueue  = "books"  // subscriber, HandleTx
	poisonQueue = "poison" // Handle
	mostQueue   = "most"   // Handle, at most once
	onceQueue   = "once"   // Handle, deduplicates
)

var queues = []string{plainQueue, exactQueue, onwardQueue, hearsQueue, booksQueue, poisonQueue, mostQueue, onceQueue}

var routes = map[string]string{
	plain{}.MessageType(): plainQueue, exact{}.MessageType(): exactQueue,
	onward{}.MessageType(): onwardQueue, poison{}.MessageType(): poisonQueue,
	most{}.MessageType(): mostQueue, once{}.MessageType(): onceQueue,
}

// inTx says whether the queue's handlers are HandleTx.
func inTx(queue string) bool {
	return queue == exactQueue || queue == onwardQueue || queue == booksQueue
}

// deed is what a handler does with a message.
type deed string

const (
	succeed  deed = ""
	failOnce deed = "fail once"
	failLong deed = "fail four times" // into the delayed retries
	failEver deed = "fail for ever"
	giveUp   deed = "unrecoverable"
	panics   deed = "panic once"
	slowly   deed = "slow" // longer than the hold limit
	sendsOn  deed = "send on"

	// Poison.
	exits     deed = "exit"
	kills     deed = "kill"  // its process, as the system does when memory is short
	crashes   deed = "crash" // by a panic where the library cannot catch it
	hangs     deed = "hang"  // for ever, whatever the context says
	gorges    deed = "gorge" // takes memory until there is none
	panicEver deed = "panic for ever"
	differs   deed = "differ" // fails differently each time
)

// fatal says whether a deed ends the process that does it, sooner or later.
func (d deed) fatal() bool {
	return d == exits || d == kills || d == crashes || d == hangs || d == gorges
}

// fails says whether the message ends in the error table.
func (d deed) fails() bool {
	return d == failEver || d == giveUp || d == panicEver || d == differs || d.fatal()
}

// deedOf says what the handler of a queue does with the message of a key.
func deedOf(queue string, k key) deed {
	p := mix(uint64(k)) % 1000
	switch queue {
	case plainQueue:
		return pick(p, 50, failOnce, 20, failLong, 10, failEver, 5, giveUp, 3, panics, 15, slowly, 60, sendsOn)
	case exactQueue:
		return pick(p, 40, failOnce, 15, failLong, 10, failEver, 5, giveUp, 3, panics, 5, slowly, 80, sendsOn)
	case hearsQueue:
		return pick(p, 20, failOnce, 5, failEver, 5, slowly)
	case mostQueue:
		return pick(p, 40, failEver, 10, panicEver, 30, slowly, 500, sendsOn)
	case onceQueue: // whose handlers all send on: that tells how many of them were settled
		return pick(p, 40, failOnce, 15, failLong, 10, failEver, 5, giveUp, 3, panics, 15, slowly)
	case booksQueue:
		return pick(p, 15, failOnce, 5, failEver)
	}
	return succeed
}

// pick takes shares of a thousand, each with its deed.
func pick(p uint64, sharesAndDeeds ...any) deed {
	for i := 0; i < len(sharesAndDeeds); i += 2 {
		share := uint64(sharesAndDeeds[i].(int))
		if p < share {
			return sharesAndDeeds[i+1].(deed)
		}
		p -= share
	}
	return succeed
}

// sendsOnFrom says whether the handler of a queue sends on.
func (d deed) sendsOnFrom(queue string) bool { return d == sendsOn || queue == onceQueue && !d.fails() }

// mix is the finaliser of splitmix64: neighbouring keys get unrelated numbers.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

const (
	// lease is the LeaseTime of all processes: short, so that the trial sees many recoveries.
	lease = 2 * time.Second
	// window is longer than a trial: no id is forgotten.
	window = 24 * time.Hour
	// drainTimeout is how long they wait for handlers when they are asked to end.
	drainTimeout = time.Second
)
