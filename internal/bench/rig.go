package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
	"slices"
	"sync"
	"time"
)

// enoughRounds is when a median does not get any better.
const enoughRounds = 15

// rig is what a run of a benchmark has: a database, receiving processes, and what the server says of itself.
type rig struct {
	Options
	*journal
	began     time.Time
	db        *database
	receivers *receivers
	stats     *statistics
	facts     Server
}

// open starts or finds the server and makes the schema.
func open(ctx context.Context, o Options, statements bool) (l *rig, err error) {
	j := &journal{tell: o.Progress, notes: []string{}}
	db := &database{journal: j, url: o.DatabaseURL}
	l = &rig{
		Options: o, journal: j, began: time.Now(), db: db,
		receivers: &receivers{journal: j, db: db, command: o.Receiver, concurrency: o.Concurrency, profile: o.Profile},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if err := db.open(ctx, statements); err != nil {
		return l, err
	}
	if l.facts, err = readServer(ctx, db.pool, db.server != nil); err != nil {
		return l, err
	}
	l.stats = &statistics{journal: j, pool: db.pool, cpu: findAccounting(ctx, db.pool)}
	if err := db.makeSchema(ctx, o.Force); err != nil {
		return l, err
	}
	if db.server != nil && statements {
		db.makeCounter(ctx)
	}
	return l, nil
}

// close ends the receiving processes and removes the schema, or the server with all that is in it. It does so too when
// the context of the run has ended.
func (l *rig) close() error {
	l.progress("tidying up")
	defer l.progress("")
	l.receivers.kill()
	return l.db.close()
}

// rounds calls f for as long as Options.Duration allows one more, at least once and at most so often. It returns how often.
func (l *rig) rounds(ctx context.Context, most int, f func(round int) error) (n int, err error) {
	began, longest := time.Now(), time.Duration(0)
	for n == 0 || n < most && time.Since(began)+longest <= l.Duration {
		this := time.Now()
		if err := f(n); err != nil {
			return n, err
		}
		if err := ctx.Err(); err != nil {
			return n, err
		}
		longest = max(longest, time.Since(this))
		n++
	}
	return n, nil
}

// alternate calls the functions in turn, in odd rounds from the last to the first, so that neither always comes after
// the other.
func alternate(round int, fs ...func() error) error {
	for i := range fs {
		if round%2 == 1 {
			i = len(fs) - 1 - i
		}
		if err := fs[i](); err != nil {
			return err
		}
	}
	return nil
}

// profile writes a CPU profile of this process until it is stopped, if one is wanted.
func (l *rig) profile() (stop func(), err error) {
	if l.Profile == "" {
		return func() {}, nil
	}
	return profileTo(l.Profile + "-driver.pprof")
}

func profileTo(name string) (stop func(), err error) {
	file, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		file.Close()
	}, nil
}

// journal tells the user how a run goes: what goes on right now, and, with the result, what should be known of it.
type journal struct {
	tell func(line string) // nil: nobody wants to know

	mu    sync.Mutex
	notes []string
}

func (j *journal) progress(format string, args ...any) {
	if j.tell != nil {
		j.tell(fmt.Sprintf(format, args...))
	}
}

// note adds a sentence to the result, once.
func (j *journal) note(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	if !slices.Contains(j.notes, text) {
		j.notes = append(j.notes, text)
	}
}
