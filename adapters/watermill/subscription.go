package sqlqwatermill

import (
	"context"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// subscription hands out messages of an outlet for one call of Subscribe, on the channel out. A goroutine takes them from the outlet and
// sends them; one for each message waits for its Ack.
type subscription struct {
	ctx    context.Context // of Subscribe
	outlet *outlet
	config SubscriberConfig

	out     chan *message.Message // only pump sends, and closes it
	slots   chan struct{}         // filled for each message that is handed out
	closing chan struct{}         // closed: no more messages are handed out
	gone    chan struct{}         // closed: messages that are handed out are waited for no longer
	unacked sync.WaitGroup        // messages that are handed out
}

func newSubscription(ctx context.Context, o *outlet, config SubscriberConfig) *subscription {
	return &subscription{ctx: ctx, outlet: o, config: config,
		out: make(chan *message.Message), slots: make(chan struct{}, config.Concurrency),
		closing: make(chan struct{}), gone: make(chan struct{})}
}

// run hands out messages until the context of Subscribe ends, the Subscriber closes, or the outlet has stopped. It returns when nothing of
// the subscription is left.
func (s *subscription) run(closing, stopped <-chan struct{}) error {
	pumped := make(chan struct{})
	go func() {
		defer close(pumped)
		defer close(s.out)
		s.pump()
	}()
	select {
	case <-s.ctx.Done():
	case <-closing:
	case <-stopped:
	}
	close(s.closing)
	<-pumped
	patience := time.AfterFunc(max(s.config.DrainTimeout, 0), func() { close(s.gone) })
	s.unacked.Wait()
	patience.Stop()
	return leave(s.outlet, s.config.Concurrency)
}

// pump hands out messages until closing.
func (s *subscription) pump() {
	for {
		select {
		case s.slots <- struct{}{}:
		case <-s.closing:
			return
		}
		var offered offer
		select {
		case offered = <-s.outlet.offers:
		case <-s.closing:
			return
		}
		ctx, cancel := context.WithCancel(s.ctx)
		m := newMessage(ctx, offered.delivery)
		select {
		case s.out <- m:
			s.unacked.Go(func() {
				defer cancel()
				s.await(m, offered)
			})
			continue
		case <-offered.ctx.Done(): // nobody reads, and the handler must return
			<-s.slots
		case <-s.closing:
		}
		cancel()
		offered.result <- result{end: untaken}
	}
}

// await waits until a message is acked or nacked, and tells its handler.
func (s *subscription) await(m *message.Message, offered offer) {
	select {
	case <-m.Acked():
	case <-m.Nacked():
	case <-s.gone:
	case <-offered.ctx.Done():
	}
	<-s.slots
	r := result{end: untaken}
	if isClosed(m.Acked()) { // also if it was at the last moment
		r.end = acked
	} else if isClosed(m.Nacked()) {
		r = result{end: nacked, delay: s.config.NackDelay}
	}
	offered.result <- r
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
