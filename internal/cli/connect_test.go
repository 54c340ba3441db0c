package cli

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/internal/term"
)

// On a terminal what destroys asks: for a yes where nothing goes with it, for the name of a queue that holds messages.
func TestConfirm(t *testing.T) {
	t.Parallel()
	url := "--database-url=" + pgtest.Database(t)
	if code, _, err := command(t, "", url, "queue", "create", "sales", "billing"); code != 0 {
		t.Fatal(err)
	}
	refused := func(line, question string, answers ...string) {
		t.Helper()
		for _, answer := range answers {
			code, out, err := command(t, answer, append(strings.Fields("queue "+line), "sales", url)...)
			if code != exitError || out != "" || !strings.Contains(err, "This will ") || !strings.Contains(err, `queue "sales"`) ||
				!strings.Contains(err, "of database ") || !strings.Contains(err, question) || !strings.Contains(err, "nothing was done") {
				t.Errorf("%s %q: exit code %d\n%s", line, answer, code, err)
			}
		}
	}
	done := func(answer string, args ...string) {
		t.Helper()
		if code, _, err := command(t, answer, append([]string{url}, args...)...); code != 0 {
			t.Errorf("%s: exit code %d\n%s", args, code, err)
		}
	}
	refused("drop", "Go on? [y/N]", "\n", "n\n", "no\n", "yess\n", "sales\n", "\x04")
	done("Y\n", "queue", "purge", "sales")
	done("y\n", "queue", "drop", "billing")
	done("", "send", "sales", "--type", "T", "--body", "{}")
	for _, line := range []string{"purge", "drop --force"} {
		refused(line, `Type "sales" to go on: `, "\n", "y\n", "yes\n", "Sales\n", "\x04")
	}
	done("sales\n", "queue", "drop", "sales", "--force")
	done("yes\n", "migrate", "down")
}

// Who is asked can interrupt instead of answering.
func TestConfirmInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e := &env{streams: streams{in: never{}, err: &strings.Builder{}, inTerminal: true, errTerminal: true}}
	if err := e.confirm(ctx, change{}, "drop it"); err == nil || err.Error() != "nothing was done" {
		t.Errorf("err %v", err)
	}
}

// Ctrl-C ends a command that waits for its input, and nothing was done.
func TestReadingInterrupted(t *testing.T) {
	t.Parallel()
	url := "--database-url=" + fail(t, 1).url
	for _, line := range []string{"send sales T", "publish T", "queue import sales", "error edit 1 --body-file -", "error ls --id -", "error replay --id -",
		"delayed cancel --id -", "queue peek sales --id -", "lease release -"} {
		ctx, cancel := context.WithCancel(t.Context())
		asked := cancelling{cancel: cancel}
		s := streams{in: never{}, out: &strings.Builder{}, err: &asked, inTerminal: true, errTerminal: true}
		if code := run(ctx, append(strings.Fields(line), url), s); code != exitInterrupted || !strings.Contains(asked.String(), "interrupted") {
			t.Errorf("%s: exit code %d: %s", line, code, &asked)
		}
	}
}

// cancelling interrupts a command as soon as it says that it reads.
type cancelling struct {
	strings.Builder
	cancel func()
}

func (c *cancelling) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "Ctrl-D ends it") {
		c.cancel()
	}
	return c.Builder.Write(p)
}

// never is a terminal on which nobody types.
type never struct{}

func (never) Read([]byte) (int, error) { select {} }

func TestOnTerminal(t *testing.T) {
	t.Parallel()
	url := "--database-url=" + pgtest.Database(t)
	if code, _, err := command(t, "", url, "queue", "create", "sales"); code != 0 {
		t.Fatal(err)
	}
	body := `"` + strings.Repeat("long ", 50) + `"`
	if code, _, err := command(t, body, url, "send", "sales", "--type", "T"); code != 0 || !strings.Contains(err, "Ctrl-D ends it") {
		t.Errorf("send: exit code %d\n%s", code, err)
	}
	_, out, _ := command(t, "-", url, "queue", "peek", "sales")
	for line := range strings.Lines(out) {
		if term.Width(strings.TrimSuffix(line, "\n")) > 80 {
			t.Errorf("wider than the terminal: %q", line)
		}
	}
	if !strings.Contains(out, "s ago  T ") || !strings.Contains(out, "…\n") {
		t.Errorf("peek:\n%s", out)
	}
	_, out, _ = command(t, "-", url, "queue", "ls")
	if !strings.Contains(out, "s ago  ") {
		t.Errorf("ls:\n%s", out)
	}
}

// Every list fits a terminal of 80 columns, whatever its texts are like, has times that tell how long ago, and no colours
// where NO_COLOR is set.
func TestListsFit(t *testing.T) {
	f := fail(t, 3)
	f.exec(`UPDATE sqlq.error SET type = 'billing.ChargeTheCardOfTheCustomer', message = repeat('connection refused ', 20), fingerprint = '22a2d762cc497df3'`)
	f.exec(`INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body, error) VALUES (now() + interval '1 day', gen_random_uuid(), 'retry', 'sales', 'billing.ChargeTheCardOfTheCustomer', '{}', repeat('connection refused ', 20))`)
	f.exec(`INSERT INTO sqlq.instance (endpoint, host, pid, version, concurrency, session_lock, lease_time, heartbeat_at, handled, failed, slow, slowest)
		VALUES ('sales', 'web-1.eu-central-1.compute.internal', 4711, 'v1.2.3-20261121-abcdef', 8, true, '1 day', now() - interval '7 min', 1234567, 12345, 1, '45 s')`)
	f.exec(`INSERT INTO sqlq.leased (instance, queue, seq, leased_at, id, sent_at, attempt, type, body) VALUES (1, 'sales', 1, now() - interval '7 min', gen_random_uuid(), now(), 2, 'billing.ChargeTheCardOfTheCustomer', '{}')`)
	f.exec(`INSERT INTO sqlq.subscription (type, queue) VALUES ('billing.TheCardOfTheCustomerWasChargedAfterTheThirdReminderHadBeenSent', 'sales')`)
	f.exec(`INSERT INTO sqlq.operation (kind, status, filter, wanted, done, os_user, host, reason, began_at) VALUES ('reschedule', 'interrupted', '{"type":"billing.ChargeTheCardOfTheCustomer","limit":1000}', 1000, 400, 'ann', 'laptop.office.example', 'the bank is back, says Bob', now() - interval '7 min')`)
	f.exec(`SELECT sqlq.send('sales', 'billing.ChargeTheCardOfTheCustomer', '{"order": 17}')`)
	f.exec(`SELECT sqlq.create_queue('a-very-long-queue-name-for-invoices-of-the-european-region')`)
	for _, line := range []string{"queue ls", "queue peek sales", "error ls", "error groups", "error replay --all --dry-run", "delayed ls", "lease ls", "subscription ls",
		"instance ls", "instance ls --all", "operation ls", "migrate status", "config show --color always"} {
		t.Setenv("NO_COLOR", "")
		args := append(strings.Fields(line), "--database-url", f.url)
		code, out, said := command(t, "-", args...)
		if code != 0 || regexp.MustCompile(`20\d\d-\d\d-\d\dT`).MatchString(out) || !strings.Contains(out, "\x1b[") {
			t.Errorf("%s: exit code %d\n%s%s", line, code, out, said)
		}
		for text := range strings.Lines(out) {
			if wide := term.Width(strings.TrimSuffix(text, "\n")); wide > 80 {
				t.Errorf("%s: %d columns: %q", line, wide, text)
			}
		}
		t.Setenv("NO_COLOR", "1")
		if _, out, _ := command(t, "-", args...); !strings.Contains(line, "--color") && strings.Contains(out, "\x1b[") {
			t.Errorf("%s: colours in spite of NO_COLOR:\n%q", line, out)
		}
	}
}

// A server that does not answer is given up.
func TestConnectTimeout(t *testing.T) {
	t.Parallel()
	e := &env{databaseURL: "postgres://user@host/db"}
	config, err := e.config()
	if err != nil || config.ConnConfig.ConnectTimeout != 10*time.Second {
		t.Errorf("timeout %v, err %v", config.ConnConfig.ConnectTimeout, err)
	}
	e.databaseURL += "?connect_timeout=3"
	if config, err = e.config(); err != nil || config.ConnConfig.ConnectTimeout != 3*time.Second {
		t.Errorf("its own: timeout %v, err %v", config.ConnConfig.ConnectTimeout, err)
	}
}

func TestWhereIs(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"postgres://u:secret@db1/app":             `database "app" on db1:5432`,
		"postgres://u:secret@db1:6543/":           `database "u" on db1:6543`,
		"postgres://u:secret@db1,db2:6543/app":    `database "app" on db1:5432 or db2:6543`,
		"host=/tmp/pg user=u password=s dbname=a": `database "a" on socket /tmp/pg`,
		"postgres://u@[::1]/app":                  `database "app" on [::1]:5432`,
	} {
		config, err := (&env{databaseURL: url}).config()
		if err != nil {
			t.Errorf("%s: %v", url, err)
		} else if got := whereIs(config.ConnConfig); got != want {
			t.Errorf("%s: got %s, want %s", url, got, want)
		}
	}
}
