package failover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg"
	"github.com/sqlq/sqlq/internal/lab"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

// trial is one primary, its standby, and the processes that use them.
type trial struct {
	Options
	synchronous        bool
	primary, standby   *devpg.Server
	senders, receivers []*process

	journal   map[int64]bool   // what the standby had when it was promoted
	sequences map[string]int64 // of the queues, on the primary just before the crash
	back      int              // of them stood lower on the standby
	crashed   time.Time
	promoting time.Time // Promote was called: what was acknowledged before, the primary had acknowledged
	promoted  time.Time // Promote had returned

	receiversBack int
}

// tables are the business's. Journal gets the number of each message in the transaction that sends it, so that a server
// has the one exactly if it has the other.
const tables = `
SELECT sqlq.create_queue(q) FROM unnest(ARRAY['effects', 'plain']) q;
CREATE TABLE effect (n bigint NOT NULL, pid int NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE journal (n bigint PRIMARY KEY);
CREATE FUNCTION note_sent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.journal SELECT (convert_from(body, 'UTF8')::json->>'n')::bigint FROM added ON CONFLICT DO NOTHING;
	RETURN NULL;
END $$;
CREATE TRIGGER note_sent AFTER INSERT ON sqlq.q_effects REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION note_sent();
CREATE TRIGGER note_sent AFTER INSERT ON sqlq.q_plain REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION note_sent();`

const database = "torture"

func try(ctx context.Context, o Options, standby devpg.StandbyOptions) (a Account, err error) {
	t := &trial{Options: o, synchronous: standby.Synchronous}
	defer func() { err = errors.Join(err, t.close()) }()
	if err := t.setUp(ctx, standby); err != nil {
		return a, fmt.Errorf("set up: %w", err)
	}
	t.say("%s standby; load for %v", kindOf(standby), o.Load)
	if err := t.pause(ctx, o.Load); err != nil {
		return a, err
	}
	if err := t.failOver(ctx); err != nil {
		return a, err
	}
	t.say("promoted; load for %v more", o.Load)
	if err := t.pause(ctx, o.Load); err != nil {
		return a, err
	}
	if err := t.drain(ctx); err != nil {
		return a, err
	}
	return t.account(ctx)
}

func (t *trial) say(format string, args ...any) {
	fmt.Fprintf(t.Log, "%s %s\n", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
}

func (t *trial) setUp(ctx context.Context, o devpg.StandbyOptions) (err error) {
	if t.primary, err = devpg.Start(ctx, t.Server); err != nil {
		return err
	}
	if err := lab.Execute(ctx, t.primary.URL(""), `CREATE DATABASE `+database); err != nil {
		return err
	}
	if err := migrate.Up(ctx, t.primary.URL(database), "sqlq"); err != nil {
		return err
	}
	if err := lab.Execute(ctx, t.primary.URL(database), tables); err != nil {
		return err
	}
	if t.standby, err = t.primary.Standby(ctx, o); err != nil {
		return err
	}
	url, err := devpg.EitherURL(database, t.primary, t.standby)
	if err != nil {
		return err
	}
	for range t.Receivers {
		p, err := start(t.Child(), spec{URL: url, Receive: true})
		if err != nil {
			return err
		}
		t.receivers = append(t.receivers, p)
	}
	for i := range t.Senders {
		p, err := start(t.Child(), spec{URL: url, First: int64(i+1) * 1e9, Rate: max(1, t.Rate/t.Senders)})
		if err != nil {
			return err
		}
		t.senders = append(t.senders, p)
	}
	return nil
}

// failOver kills the primary and promotes the standby, and looks in between at what the standby has.
func (t *trial) failOver(ctx context.Context) (err error) {
	if !t.synchronous && t.Lag > 0 {
		// A reload stops the WAL receiver. This is a network that is slow, as far as the standby can tell.
		if err := lab.Execute(ctx, t.standby.URL(""), `ALTER SYSTEM SET primary_conninfo = ''`, `SELECT pg_reload_conf()`); err != nil {
			return fmt.Errorf("hold up the replication: %w", err)
		}
		if err := t.pause(ctx, t.Lag); err != nil {
			return err
		}
	}
	if t.sequences, err = sequences(ctx, t.primary.URL(database)); err != nil {
		return err
	}
	if err := t.primary.Crash(ctx); err != nil {
		return err
	}
	t.crashed = time.Now()
	t.say("primary crashed")
	if err := t.pause(ctx, t.Outage); err != nil {
		return err
	}
	if err := t.inspectStandby(ctx); err != nil {
		return fmt.Errorf("ask the standby what it has: %w", err)
	}
	t.promoting = time.Now()
	if err := t.standby.Promote(ctx); err != nil {
		return err
	}
	t.promoted = time.Now()
	return nil
}

// inspectStandby asks the standby, which has lost its primary, what it has: once it has applied all that it received, for
// that is what it will be promoted with.
func (t *trial) inspectStandby(ctx context.Context) error {
	const applied = `SELECT coalesce(pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn(), true)`
	conn, err := pgx.Connect(ctx, t.standby.URL(database))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for late, done := time.Now().Add(patience), false; !done; {
		if err := conn.QueryRow(ctx, applied).Scan(&done); err != nil {
			return err
		}
		if time.Now().After(late) {
			break // the last bytes received can be half a record, which is never applied; promotion drops it too
		}
		if !done {
			if err := t.pause(ctx, 5*time.Millisecond); err != nil {
				return err
			}
		}
	}
	rows, err := conn.Query(ctx, `SELECT n FROM journal`)
	if err != nil {
		return err
	}
	had, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return err
	}
	t.journal = make(map[int64]bool, len(had))
	for _, n := range had {
		t.journal[n] = true
	}
	after, err := sequences(ctx, t.standby.URL(database))
	for name, before := range t.sequences {
		if after[name] < before {
			t.back++
			t.say("sequence %s stood at %d and stands at %d", name, before, after[name])
		}
	}
	return err
}

// patience is for what should take milliseconds.
const patience = 2 * time.Second

// sequences returns where the queues' sequences stand.
func sequences(ctx context.Context, url string) (map[string]int64, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `SELECT sequencename::text, coalesce(last_value, 0) FROM pg_sequences WHERE schemaname = 'sqlq' AND sequencename LIKE 's\_%'`)
	if err != nil {
		return nil, err
	}
	all := map[string]int64{}
	var name string
	var last int64
	_, err = pgx.ForEachRow(rows, []any{&name, &last}, func() error { all[name] = last; return nil })
	return all, err
}

// undone counts the messages that are not handled and have not failed for good.
var undone = `SELECT ` + lab.Waiting(queues...)

// drainWithin is far longer than it takes.
const drainWithin = 2 * time.Minute

// drain stops the senders, waits until nothing is left to do, and stops the receivers.
func (t *trial) drain(ctx context.Context) error {
	if err := dismiss(ctx, t.senders); err != nil {
		return fmt.Errorf("sender: %w", err)
	}
	conn, err := pgx.Connect(ctx, t.standby.URL(database))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for late := time.Now().Add(drainWithin); ; {
		var n int
		if err := conn.QueryRow(ctx, undone).Scan(&n); err != nil {
			return err
		}
		if n == 0 {
			break
		}
		if time.Now().After(late) {
			t.say("%d messages were not handled within %v", n, drainWithin)
			break // the account says which
		}
		if err := t.pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	t.say("drained")
	if err := t.awaitReceivers(ctx, conn); err != nil {
		return err
	}
	if err := dismiss(ctx, t.receivers); err != nil {
		return fmt.Errorf("receiver: %w", err)
	}
	return nil
}

// awaitReceivers counts the receiving processes that the promoted standby knows to be alive, and waits for those that it
// does not know of until they are late. (That one has handled nothing says nothing: work goes to few while these suffice.)
func (t *trial) awaitReceivers(ctx context.Context, conn *pgx.Conn) error {
	const back = `SELECT count(DISTINCT pid) FROM sqlq.instance WHERE heartbeat_at > $1`
	for {
		late := time.Since(t.promoted) > RecoverWithin
		if err := conn.QueryRow(ctx, back, t.promoted).Scan(&t.receiversBack); err != nil || late || t.receiversBack == t.Receivers {
			return err
		}
		if err := t.pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// pause waits, unless a process ends, which none should.
func (t *trial) pause(ctx context.Context, d time.Duration) error {
	if err := lab.Sleep(ctx, d); err != nil {
		return err
	}
	for _, p := range append(t.senders[:len(t.senders):len(t.senders)], t.receivers...) {
		if err := p.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (t *trial) close() (err error) {
	for _, p := range append(t.senders, t.receivers...) {
		p.kill()
	}
	for _, s := range []*devpg.Server{t.primary, t.standby} {
		if s != nil {
			err = errors.Join(err, s.Stop())
		}
	}
	return err
}
