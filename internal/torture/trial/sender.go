package trial

import (
	"context"
	crand "crypto/rand"
	"encoding/base64"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/lab"
	"github.com/sqlq/sqlq/sqlq"
)

// line is what a child says to its parent.
type line struct {
	Try   *batch `json:",omitempty"` // is about to be sent
	Ack   key    `json:",omitempty"` // first key of a batch: the commit was acknowledged
	Err   key    `json:",omitempty"` // first key of a batch whose outcome is unknown
	Why   string `json:",omitempty"`
	Hangs key    `json:",omitempty"` // a handler is about to hang
}

// batch is a number of messages with keys that follow one another, of which all or none are sent.
type batch struct {
	First key
	N     int
	To    string // a queue; "" publishes
	How   string // send, many, tx, twice, or, by a stranger, sql
	Do    []deed `json:",omitempty"` // of poison
	Delay time.Duration
	Pad   int `json:",omitempty"` // bytes that each body is padded with; 0: a few

	// Of the ledger.
	sender string
	tried  time.Time
	ended  time.Time
	acked  bool
	why    string
}

// send sends until the context ends. The outcome of a failed send is taken for unknown whatever the error: the trial
// wants to know what happened, not what the library thinks.
func (c *child) send(ctx context.Context) error {
	const atOnce = 4 // so that sends share transactions
	var next atomic.Int64
	next.Store(int64(firstKey(c.Run)))
	var senders sync.WaitGroup
	for i := range atOnce {
		senders.Go(func() {
			c.sendOn(ctx, rand.New(rand.NewPCG(c.Seed, uint64(c.Run*atOnce+i))), float64(c.Rate)/atOnce, &next)
		})
	}
	senders.Wait()
	return nil
}

func (c *child) sendOn(ctx context.Context, r *rand.Rand, rate float64, next *atomic.Int64) {
	began, sent := time.Now(), 0
	for ctx.Err() == nil {
		if c.held.Load() {
			time.Sleep(20 * time.Millisecond)
			began, sent = time.Now(), 0
			continue
		}
		if ahead := time.Duration(float64(sent)/rate*float64(time.Second)) - time.Since(began); ahead > 0 {
			if lab.Sleep(ctx, ahead) != nil {
				return
			}
		}
		b := compose(r)
		b.First = key(next.Add(int64(b.N)) - int64(b.N))
		sent += b.N
		c.Tell(line{Try: b})
		bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := c.sendBatch(bounded, b)
		cancel()
		if err == nil {
			c.Tell(line{Ack: b.First})
			continue
		}
		c.Tell(line{Err: b.First, Why: err.Error()})
		time.Sleep(30 * time.Millisecond)
	}
}

// compose decides on the next batch, but for its keys.
func compose(r *rand.Rand) *batch {
	b := &batch{N: 1}
	p := r.IntN(100)
	switch {
	case p < 50:
		b.To = plainQueue
	case p < 75:
		b.To = exactQueue
	case p < 82:
		b.To = mostQueue
	case p < 92:
		b.To = onceQueue
	}
	switch q := r.IntN(10); {
	case b.To == "":
		b.How = "send"
		if q < 4 {
			b.How, b.N = "tx", 1+r.IntN(10)
		}
	case q < 4:
		b.How = "send"
	case q < 8:
		b.How, b.N = "many", 2+r.IntN(60)
	case q < 9:
		b.How, b.N = "tx", 1+r.IntN(10)
	default:
		b.How, b.N = "many", 301+r.IntN(60) // by COPY
		if r.IntN(2) == 0 {
			b.N = 1 + r.IntN(60)
		}
	}
	if b.To == onceQueue {
		b.How, b.N = "twice", 1
	}
	if r.IntN(12) == 0 {
		b.Delay = time.Duration(1+r.IntN(4000)) * time.Millisecond
		b.N = min(b.N, 40)
	}
	return b
}

var padding = strings.Repeat("x", 80)

func (b *batch) messages() []sqlq.Message {
	all := make([]sqlq.Message, b.N)
	pad := padding
	if b.Pad > 0 {
		pad = incompressible(b.Pad)
	}
	for i := range all {
		w := work{K: b.First + key(i), Pad: pad}
		if b.Do != nil {
			w.Do = b.Do[i]
		}
		switch b.To {
		case plainQueue:
			all[i] = plain{w}
		case exactQueue:
			all[i] = exact{w}
		case mostQueue:
			all[i] = most{w}
		case onceQueue:
			all[i] = once{w}
		case poisonQueue:
			all[i] = poison{w}
		default:
			all[i] = event{w}
		}
	}
	return all
}

// incompressible returns text that takes as much room in the database as it has bytes.
func incompressible(n int) string {
	raw := make([]byte, n*3/4)
	crand.Read(raw) // never fails
	return base64.StdEncoding.EncodeToString(raw)
}

func (c *child) sendBatch(ctx context.Context, b *batch) error {
	var options []sqlq.SendOption
	if b.Delay > 0 {
		options = append(options, sqlq.Delay(b.Delay))
	}
	ms := b.messages()
	switch {
	case b.How == "twice":
		return c.sendTwice(ctx, ms[0], options)
	case b.How == "many":
		return c.client.SendMany(ctx, ms, options...)
	case b.How == "send" && b.To == "":
		return c.client.Publish(ctx, ms[0], options...)
	case b.How == "send":
		return c.client.Send(ctx, ms[0], options...)
	}
	// The row in sent shows later whether the transaction committed, with what became of its messages or without.
	return pgx.BeginFunc(ctx, c.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO sent (first) VALUES ($1)`, b.First); err != nil {
			return err
		}
		for _, m := range ms {
			var err error
			if b.To == "" {
				err = c.client.PublishTx(ctx, tx, m, options...)
			} else {
				err = c.client.SendTx(ctx, tx, m, options...)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// sendTwice sends a message two times with one id, whatever became of the first. It is sent if either was.
func (c *child) sendTwice(ctx context.Context, m sqlq.Message, options []sqlq.SendOption) error {
	options = append(options, sqlq.WithID(sqlq.NewID()))
	first := c.client.Send(ctx, m, options...)
	if err := c.client.Send(ctx, m, options...); err != nil {
		return first
	}
	return nil
}
