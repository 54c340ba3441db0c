package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sqlq/sqlq/internal/lab"
	"github.com/sqlq/sqlq/sqlq"
)

// note is the message that all benchmarks send: JSON of exactly as many bytes as the user asked for.
type note struct {
	N   int64  `json:"n"`
	At  int64  `json:"at"` // when it was sent or should be handled, in nanoseconds since 1970; 0: nobody asks
	Pad string `json:"pad"`
}

func (note) MessageType() string { return noteType }

const noteType = "bench.Note"

// nothingHappened is an event that nobody publishes.
type nothingHappened struct{}

func (nothingHappened) MessageType() string { return "bench.NothingHappened" }
func (nothingHappened) IsEvent()            {}

const (
	minSize = 64 // fits the longest numbers
	maxSize = 1 << 20
)

// newNote makes a note whose JSON has so many bytes.
func newNote(n, at int64, size int) note {
	bare, err := json.Marshal(note{N: n, At: at})
	if err != nil {
		panic(err) // two numbers and a string
	}
	return note{N: n, At: at, Pad: padding()[:size-len(bare)]}
}

// body returns the JSON of a note as the library's codec writes it.
func (m note) body() []byte {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// padding is text that does not compress to nothing, the same in every run.
var padding = sync.OnceValue(func() string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 -"
	random := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, maxSize)
	for i := range text {
		text[i] = letters[random.IntN(len(letters))]
	}
	return string(text)
})

// notes returns the messages first, first+1, … for SendMany.
func notes(first int64, n, size int) []sqlq.Message {
	ms := make([]sqlq.Message, n)
	for i := range ms {
		ms[i] = newNote(first+int64(i), 0, size)
	}
	return ms
}

// fillChunk is how many messages one SendMany of fill has.
const fillChunk = 5_000

// fill puts n messages into a queue, through the library.
func (l *rig) fill(ctx context.Context, queue string, n int) error {
	pool, err := l.db.connect(ctx, 2)
	if err != nil {
		return err
	}
	defer pool.Close()
	client, err := l.db.client(ctx, pool, queue, sqlq.Config{})
	if err != nil {
		return err
	}
	for sent := 0; sent < n; sent += fillChunk {
		l.progress("filling queue %s: %s of %s", queue, lab.Thousands(int64(sent)), lab.Thousands(int64(n)))
		if err := client.SendMany(ctx, notes(int64(sent), min(fillChunk, n-sent), l.Size)); err != nil {
			return fmt.Errorf("fill queue %q: %w", queue, err)
		}
	}
	return nil
}

// pace calls f so many times a second, at uneven times, until d has passed, and returns how often it did: at least once.
// A call that takes too long delays the next; f times what it does from its own beginning.
func pace(ctx context.Context, perSecond float64, d time.Duration, f func() error) (n int64, err error) {
	every := float64(time.Second) / perSecond
	began := time.Now()
	next := began
	for {
		next = next.Add(time.Duration(every * (0.5 + rand.Float64())))
		if n > 0 && next.Sub(began) > d {
			return n, nil
		}
		if err := lab.SleepUntil(ctx, next); err != nil {
			return n, err
		}
		if err := f(); err != nil {
			return n, err
		}
		n++
	}
}
