package sqlq

import (
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

const (
	mostPerSlot = 1000                  // messages in hand for each slot
	batchTime   = 40 * time.Millisecond // how long the handlers of a batch are meant to take
)

// pace is what an instance has learnt of how fast it handles messages, and how large they are: so many are fetched. The hand's mutex
// guards it.
type pace struct {
	mean     time.Duration // of the time that a handler takes, plain
	meanTx   time.Duration // likewise, HandleTx
	endedTx  time.Time     // when one of these last ended, or their receivers last began
	ended    int           // plain handlers that have ended
	most     int           // to have in hand, learnt from a batch that was not done by the hold limit; 0: what the mean says
	meanSize int           // of messages, in bytes; 0: none has come
	share    int           // to fetch at least for batch handlers, learnt from what handlers began; 0: as many as they may get
}

// took learns how long a plain handler took, tookTx a HandleTx handler.
func (p *pace) took(took time.Duration) {
	learn(&p.mean, took)
	p.ended++
}

// tookChunk is took for a call with so many messages.
func (p *pace) tookChunk(took time.Duration, messages int) {
	learn(&p.mean, took/time.Duration(messages))
	p.ended += messages
}

func (p *pace) tookTx(took time.Duration) {
	learn(&p.meanTx, took)
	p.endedTx = time.Now()
}

// learn moves a mean towards what another handler took. One that took much longer than the others says little of them, and
// may just have waited for the processor: it counts for nine times the mean at most.
func learn(mean *time.Duration, took time.Duration) {
	if *mean == 0 {
		*mean = max(took, 1)
	} else {
		*mean += (min(took, 9*max(*mean, 100*time.Microsecond)) - *mean) / 8
	}
}

// sized learns how large messages are, so that a fetch asks for no more than it may bring: upwards at once, downwards
// slowly. Bodies above maxBody never come.
func (p *pace) sized(ms []store.Message, maxBody int) {
	if len(ms) == 0 {
		return
	}
	total := 0
	for i := range ms {
		if m := &ms[i]; m.Size <= maxBody {
			total += m.Size + len(m.Headers)
		}
	}
	p.meanSize = max(total/len(ms), p.meanSize-p.meanSize/8, 1)
}

// bySize bounds how many messages a fetch asks for by how large they are.
func (p *pace) bySize(n int) int {
	if p.meanSize > 0 {
		n = min(n, max(1, fetchWanted/p.meanSize))
	}
	return n
}

// cut learns from a batch that is cut: late, that some of its messages have not begun by the hold limit although slots were at work;
// early, that it was done long before. ended is how many handlers had ended when it came.
func (p *pace) cut(late, early bool, ended, concurrency int) {
	switch {
	case late:
		// Handlers take longer than their mean says, which few long ones do not move: have no more in hand from now on than
		// was done meanwhile, less a quarter, and leave the rest to other processes.
		p.most = max(concurrency, (p.ended-ended)*3/4)
	case p.most > concurrency*mostPerSlot:
		p.most = 0
	case p.most > 0 && early:
		p.most *= 2 // it was the machine that stood still
	case p.most > 0:
		p.most += p.most/32 + 1
	}
}

// shared learns from a batch how many messages are worth fetching for batch handlers: where most go to other handlers, which begin few
// before it is settled, the rest would only have been locked.
func (p *pace) shared(fetched, begun int) {
	switch {
	case begun < fetched:
		p.share = max(begun, 1)
	case p.share > 0:
		p.share *= 2
	}
}

// forBatches returns how many messages to fetch at least for batch handlers that may get so many.
func (p *pace) forBatches(most int) int {
	if p.share > most {
		p.share = 0
	}
	if p.share > 0 {
		most = p.share
	}
	return most
}

// isSlowTx reports whether HandleTx handlers of the instance may keep their connections for long: they usually do, nothing is
// known of them yet, or none has ended for a while.
func (p *pace) isSlowTx(now time.Time) bool {
	return p.meanTx == 0 || p.meanTx > batchTime/2 || now.Sub(p.endedTx) > batchTime
}

// room is how many messages so many slots finish within batchTime, when some are to be handled already and some of those wait: none,
// if what waits is enough.
func (p *pace) room(slots, toHandle, waiting, mostTx int) int {
	mean := p.mean
	if mean == 0 {
		mean = p.meanTx // until a plain one has run, if there are any: else nothing would ever be known of them
	}
	most := slots * perSlot(mean)
	if p.most > 0 {
		most = min(most, p.most)
	}
	room := most - toHandle
	if mostTx > 0 {
		room = min(room, mostTx, perSlot(p.meanTx))
	}
	if waiting > 0 && room < most/4 {
		return 0 // enough in hand; small fetches cost as much as large ones
	}
	return room
}

func perSlot(mean time.Duration) int {
	if mean <= 0 {
		return 1
	}
	return max(1, min(int(batchTime/mean), mostPerSlot))
}
