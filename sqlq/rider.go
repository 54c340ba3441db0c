package sqlq

import (
	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/sending"
)

// rider is what is stored with the ends of deliveries, in the same transaction: what handlers have sent, what is known of ids. Each
// sees all deliveries of the transaction, those too that it leases or frees, and may add statements before those that remove
// rows and after them, and have channels notified after the commit (settlement.notify).
type rider interface {
	take(d *delivery, how howEnds)
	queueBefore(s *settlement, b *pgx.Batch)
	queueAfter(s *settlement, b *pgx.Batch)
}

// howEnds is what a transaction does with a delivery, as riders see it.
type howEnds int

const (
	notHandled howEnds = iota // it failed, waits, has expired, goes back or is freed
	handled                   // or has been before
	goesOn                    // it is leased while its handler runs
)

// outgoing is the rider of what handlers have sent.
type outgoing struct{ messages []sending.Envelope }

func (o *outgoing) take(d *delivery, how howEnds) {
	if how == handled {
		o.messages = append(o.messages, d.out...)
	}
}

func (o *outgoing) queueBefore(s *settlement, b *pgx.Batch) {
	s.client.sender.Queue(b, o.messages, s.notify)
}

func (*outgoing) queueAfter(*settlement, *pgx.Batch) {}
