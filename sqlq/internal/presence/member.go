package presence

import (
	"sync/atomic"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// Member is an instance of this process: its part in an endpoint, with a record in the instance table. The fields are what the
// housekeeping must know of it; they are set before it is given to a Keeper.
type Member struct {
	Endpoint    string
	Concurrency int

	Counters func(now time.Time) store.Counters // what it has done and is doing, without its number
	Unknown  func(leases []store.Lease) []int64 // which of the leases in its name it does not have
	Suspect  func()                             // a process of its endpoint has died with messages in hand
	Wake     func()                             // there may be messages

	number atomic.Int32 // in the instance table; written by the Keeper
}

// Number returns the instance's number in the instance table, which changes if it was thought dead; 0: it has none yet.
func (m *Member) Number() int32 { return m.number.Load() }

// numbers are the members' numbers.
func (k *Keeper) numbers() []int32 {
	var ids []int32
	for _, m := range k.members {
		ids = append(ids, m.Number())
	}
	return ids
}

// endpoints are the names of the members' endpoints.
func (k *Keeper) endpoints() []string {
	var names []string
	for _, m := range k.members {
		names = append(names, m.Endpoint)
	}
	return names
}
