package presence

import (
	"sync/atomic"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// Member is an instance of an endpoint in this process, with a record in the instance table. Its fields are what the
// housekeeping needs to know about it; set them before giving it to a Keeper.
type Member struct {
	Endpoint    string
	Concurrency int

	Counters func(now time.Time) store.Counters // returns its counters, without its number
	Unknown  func(leases []store.Lease) []int64 // returns which of the leases in its name it does not have
	Suspect  func()                             // called when a process of its endpoint has died with messages in hand
	Wake     func()                             // called when there may be messages

	number atomic.Int32 // in the instance table; written by the Keeper
}

// Number returns the instance's number in the instance table, which changes if it was taken for dead; 0: it has none yet.
func (m *Member) Number() int32 { return m.number.Load() }

// numbers returns the members' numbers.
func (k *Keeper) numbers() []int32 { return numbersOf(k.members) }

func numbersOf(members []*Member) []int32 {
	var ids []int32
	for _, m := range members {
		ids = append(ids, m.Number())
	}
	return ids
}

func endpointsOf(members []*Member) []string {
	var names []string
	for _, m := range members {
		names = append(names, m.Endpoint)
	}
	return names
}
