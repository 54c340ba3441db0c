package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// What changes many messages in batches, beside the error table. Each has to do with 12,000, a thousand a batch.
var batchCommands = map[string][]string{
	"move":       {"queue", "move", "sales", "other", "--yes"},
	"purge":      {"queue", "purge", "sales", "--yes"},
	"cancel":     {"delayed", "cancel", "--queue", "sales", "--yes"},
	"reschedule": {"delayed", "reschedule", "--queue", "sales", "--by", "1h"},
}

// stopInBatch runs a command in a process of its own, stops it in the middle of its second batch, sends it a signal, and returns
// its exit code and what it said.
func (f failures) stopInBatch(signal os.Signal, args ...string) (code int, stderr string) {
	f.t.Helper()
	f.exec(`CREATE TABLE before AS SELECT seq, id, due_at FROM sqlq.delayed`)
	f.exec(`CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(17); RETURN coalesce(NEW, OLD); END'`)
	f.exec(`CREATE TRIGGER hold BEFORE DELETE ON sqlq.q_sales FOR EACH ROW WHEN (OLD.seq = 1500) EXECUTE FUNCTION hold()`)
	f.exec(`CREATE TRIGGER hold BEFORE UPDATE OR DELETE ON sqlq.delayed FOR EACH ROW WHEN (OLD.seq IN (1500, 10500)) EXECUTE FUNCTION hold()`)
	f.exec(`SELECT pg_advisory_lock(17)`)
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, program(f.t), append(args, "--database-url", f.url)...)
	var said bytes.Buffer
	c.Stderr = &said
	if err := c.Start(); err != nil {
		f.t.Fatal(err)
	}
	for f.number(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'`) == 0 {
		if ctx.Err() != nil {
			f.t.Fatalf("it does not come to its second batch: %s", &said)
		}
	}
	if err := c.Process.Signal(signal); err != nil {
		f.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	if signal == os.Kill { // else the lock might be given back before the process has gone
		err := <-ended
		ended <- err
	}
	f.exec(`SELECT pg_advisory_unlock(17)`)
	err := <-ended
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		f.t.Fatalf("it ended with %v: %s", err, &said)
	}
	return exit.ExitCode(), said.String()
}

// Ctrl-C, and the sudden death of the process, leave whole batches done; Ctrl-C says how many and how to go on. Resumed by
// number, each message is changed once.
func TestBatchesStopped(t *testing.T) {
	t.Parallel()
	for kind, args := range batchCommands {
		for name, signal := range map[string]os.Signal{"interrupted": os.Interrupt, "killed": os.Kill} {
			t.Run(kind+" "+name, func(t *testing.T) {
				t.Parallel()
				f := fail(t, 1)
				f.exec(`SELECT sqlq.create_queue('other')`)
				f.exec(`INSERT INTO sqlq.q_sales (id, type, body) SELECT gen_random_uuid(), 'T', '{}' FROM generate_series(1, 12000)`)
				f.exec(`INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body)
					SELECT timestamptz '2100-01-01' + i * interval '1 second', gen_random_uuid(), 'delay', 'sales', 'T', '{}' FROM generate_series(1, 12000) i`)
				code, said := f.stopInBatch(signal, args...)
				done := f.number(`SELECT done FROM sqlq.operation WHERE kind = $1`, kind)
				if done < 1000 || done%1000 != 0 || done >= 12000 {
					t.Errorf("%d are done: %s", done, said)
				}
				if signal == os.Interrupt && (code != exitInterrupted || !strings.Contains(said, "Go on with: sqlq operation resume 1\n") || !strings.Contains(said, " stopped after ")) {
					t.Errorf("exit code %d: %s", code, said)
				}
				f.exec(`UPDATE sqlq.operation SET updated_at = updated_at - interval '1 minute'`)
				code, _, said = command(t, "", "operation", "resume", "1", "--database-url", f.url)
				if code != 0 || !strings.HasPrefix(said, "operation 1: "+kind+" of 12000 messages is done") {
					t.Errorf("resumed: exit code %d: %s", code, said)
				}
				left := [4]int64{f.number(`SELECT count(*) FROM sqlq.q_sales`), f.number(`SELECT count(DISTINCT id) FROM sqlq.q_other`), f.number(`SELECT count(*) FROM sqlq.delayed`),
					f.number(`SELECT count(*) FROM sqlq.delayed d JOIN before b USING (seq, id) WHERE d.due_at = b.due_at + interval '1 hour'`)}
				if want := map[string][4]int64{"move": {0, 12000, 12000, 0}, "purge": {0, 0, 12000, 0}, "cancel": {12000, 0, 0, 0}, "reschedule": {12000, 0, 12000, 12000}}[kind]; left != want {
					t.Errorf("ready, moved, delayed, shifted: %v, want %v", left, want)
				}
			})
		}
	}
}
