package trial

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sqlq/sqlq/internal/lab"
)

// strangerRole may send, and nothing else.
const strangerRole = "stranger"

// stranger does what others do who share the database: it sends by SQL and is cut off, writes rows past the functions,
// holds locks, and sends what is far too large.
type stranger struct{ *insider }

func (s stranger) faults() lane {
	return lane{name: "strangers", shortest: 200 * time.Millisecond, pause: 1500 * time.Millisecond, faults: []fault{
		{"cancelled_send", s.cancelledSends},
		{"stranger_locks", s.holdAdvisoryLocks},
		{"giant_due", s.sendGiants},
		{"infinite_times", s.insertInfiniteTimes},
		{"forged_headers", s.insertForgedHeaders},
		{"lock_table_long", s.lockTableLong},
	}}
}

// send sends one message by what do is told. It is taken for sent only when do says so.
func (s stranger) send(to string, do func(w work) error) error {
	b := &batch{N: 1, To: to, How: "sql"}
	return s.enter(b, func() error { return do(work{K: b.First}) })
}

func (w work) json() string {
	text, err := json.Marshal(w)
	if err != nil {
		panic(err) // a number and a string
	}
	return string(text)
}

// cancelledSends calls the SQL function send on one session while another cancels it, or a time-out does, and looks whether
// what was cancelled has left a lock behind.
func (s stranger) cancelledSends(ctx context.Context, r *rand.Rand, kind string) bool {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return false
	}
	defer conn.Release()
	over := s.trial.faults.struck(kind, "a stranger", "sends are cancelled")
	defer over()
	if r.IntN(3) == 0 {
		if _, err := conn.Exec(ctx, `SET statement_timeout = 1`); err != nil {
			return true
		}
		defer func() { _, _ = conn.Exec(ctx, `RESET statement_timeout`) }()
	}
	done, cancelled := make(chan struct{}), make(chan struct{})
	pid := conn.Conn().PgConn().PID()
	go func() {
		defer close(cancelled)
		for pause := rand.New(rand.NewPCG(r.Uint64(), 1)); ; {
			select {
			case <-done:
				return
			case <-time.After(between(pause, 0, time.Millisecond)):
			}
			_, _ = s.trial.site.admin.Exec(ctx, `SELECT pg_cancel_backend($1)`, pid)
		}
	}()
	for range 150 {
		err := s.send(plainQueue, func(w work) error {
			_, err := conn.Exec(ctx, `SELECT sqlq.send($1, $2, $3::text::json)`, plainQueue, plain{}.MessageType(), w.json())
			return err
		})
		if err != nil && conn.Conn().IsClosed() {
			break
		}
	}
	close(done)
	<-cancelled
	var left int
	if err := s.trial.site.admin.QueryRow(ctx, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = $1`, pid).Scan(&left); err == nil && left > 0 {
		s.trial.problem("a cancelled send left %d advisory locks behind", left)
		_ = conn.Conn().Close(ctx)
	}
	return true
}

// holdAdvisoryLocks asks for advisory locks that processes hold or may want, and keeps what it gets for a while.
func (s stranger) holdAdvisoryLocks(ctx context.Context, r *rand.Rand, kind string) bool {
	d := between(r, 500*time.Millisecond, 4*time.Second)
	conn, err := pgx.Connect(ctx, s.trial.site.urlOf(strangerRole, nil))
	if err != nil {
		return false
	}
	rows, err := s.trial.site.admin.Query(ctx, `
		SELECT DISTINCT classid::bigint, objid::bigint FROM pg_locks
		WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND objsubid = 2 ORDER BY 1, 2`)
	if err != nil {
		conn.Close(ctx)
		return false
	}
	type advisory struct{ Class, Key int64 }
	locks, err := pgx.CollectRows(rows, pgx.RowToStructByPos[advisory])
	if err != nil || len(locks) == 0 {
		conn.Close(ctx)
		return false
	}
	over := s.trial.faults.struck(kind, everybody, "for %v", d.Round(time.Millisecond))
	s.trial.lasting(func() {
		defer over()
		defer conn.Close(context.WithoutCancel(ctx))
		held := 0
		for _, l := range locks {
			var got bool
			if conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1::bigint::bit(32)::int, $2::bigint::bit(32)::int)`, l.Class, l.Key).Scan(&got) == nil && got {
				held++
			}
		}
		// Whoever asks later waits behind one that waits.
		l := locks[r.IntN(len(locks))]
		_, _ = conn.Exec(ctx, fmt.Sprintf(`SET lock_timeout = %d`, d.Milliseconds()))
		_, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1::bigint::bit(32)::int, $2::bigint::bit(32)::int)`, l.Class, l.Key)
		s.trial.faults.happened(everybody, "a stranger holds %d of %d advisory locks, and asked for (%d, %d): %v", held, len(locks), l.Class, l.Key, err)
		_ = lab.Sleep(ctx, d/2)
	})
	return true
}

// sendGiants sends large messages that are due at the same time.
func (s stranger) sendGiants(ctx context.Context, r *rand.Rand, kind string) bool {
	b := &batch{N: 8 + r.IntN(12), To: plainQueue, How: "many", Delay: between(r, 100*time.Millisecond, 2*time.Second), Pad: 1 << 20}
	s.trial.faults.struck(kind, everybody, "%d of 1 MiB", b.N)()
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	_ = s.enter(b, func() error { return s.sendBatch(bounded, b) }) // the ledger has the error
	return true
}

// insertInfiniteTimes writes rows whose times are infinite, as far as the database takes them, with all that its owner may.
// What is accepted is to be handled; a message that is due in all eternity is taken away again.
func (s stranger) insertInfiniteTimes(ctx context.Context, r *rand.Rand, kind string) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	over := s.trial.faults.struck(kind, everybody, "rows with infinite times")
	defer over()
	admin := s.trial.site.admin
	refused := 0
	for _, expires := range []string{"infinity", "294276-12-31", "9999-12-31"} {
		err := s.send(plainQueue, func(w work) error {
			_, err := admin.Exec(ctx, `INSERT INTO sqlq.q_plain (id, expires_at, type, body) VALUES (gen_random_uuid(), $1::text::timestamptz, $2, convert_to($3, 'UTF8'))`,
				expires, plain{}.MessageType(), w.json())
			return err
		})
		refused += refusals(err)
	}
	err := s.send(plainQueue, func(w work) error {
		_, err := admin.Exec(ctx, `INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body) VALUES ('-infinity', gen_random_uuid(), 'delay', $1, $2, convert_to($3, 'UTF8'))`,
			plainQueue, plain{}.MessageType(), w.json())
		return err
	})
	refused += refusals(err)
	_, err = admin.Exec(ctx, `INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body) VALUES ('infinity', $1, 'delay', $2, $3, '{}')`,
		eternal, plainQueue, plain{}.MessageType())
	refused += refusals(err)
	s.trial.faults.happened(everybody, "%d of 5 rows with infinite times were refused", refused)
	_ = lab.Sleep(ctx, between(r, 200*time.Millisecond, 1500*time.Millisecond))
	if err := s.trial.site.insist(context.WithoutCancel(ctx), `DELETE FROM sqlq.delayed WHERE id = '`+eternal+`'`); err != nil {
		s.trial.problem("take the eternal message away: %v", err)
	}
	return true
}

// eternal is the id of messages that are due never.
const eternal = "eeeeeeee-0000-4000-8000-000000000000"

// refusals counts an error that says that the row itself was not wanted.
func refusals(err error) int {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && (pg.Code == "23514" || pg.Code == "22007" || pg.Code == "22008" || pg.Code == "42501") {
		return 1
	}
	return 0
}

// insertForgedHeaders writes messages past the functions, with bookkeeping headers that only the library may set: none of
// them may change what becomes of the message.
func (s stranger) insertForgedHeaders(ctx context.Context, r *rand.Rand, kind string) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	over := s.trial.faults.struck(kind, everybody, "bookkeeping headers are forged")
	defer over()
	forged := []string{
		`{"sqlq-crashes":"7"}`, `{"sqlq-crashes":"0"}`, `{"sqlq-replays":"99999999999"}`, `{"sqlq-first-failed-at":"0000-01-01T00:00:00Z"}`,
		`{"sqlq-first-failed-at":"2001-01-01T00:00:00Z","sqlq-replays":"3","sqlq-crashes":"2"}`,
	}
	for range 10 {
		to, typ := plainQueue, plain{}.MessageType()
		if r.IntN(2) == 0 {
			to, typ = exactQueue, exact{}.MessageType()
		}
		_ = s.send(to, func(w work) error {
			_, err := s.pool.Exec(ctx, `INSERT INTO sqlq.q_`+to+` (id, type, headers, body) VALUES (gen_random_uuid(), $1, $2::text::json, convert_to($3, 'UTF8'))`,
				typ, forged[r.IntN(len(forged))], w.json())
			return err
		})
	}
	return true
}

// lockTableLong keeps a queue's table from everybody for ten seconds, while all else goes on.
func (s stranger) lockTableLong(ctx context.Context, r *rand.Rand, kind string) bool {
	table, d := anyTable(r), 10*time.Second
	over := s.trial.faults.struck(kind, everybody, "%s for %v", table, d)
	s.trial.lasting(func() {
		defer over()
		err := pgx.BeginFunc(ctx, s.trial.site.admin, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `LOCK TABLE `+table+` IN ACCESS EXCLUSIVE MODE`); err != nil {
				return err
			}
			_ = lab.Sleep(ctx, d)
			return nil
		})
		s.trial.faults.happened(everybody, "%s was locked for %v: %v", table, d, err)
	})
	return true
}
