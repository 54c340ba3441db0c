package sqlq_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/migrations"
	"github.com/sqlq/sqlq/sqlq"
)

var update = flag.Bool("update", false, "write testdata/errors.txt anew from the errors that are provoked")

// provoked collects errors as their users read them, and compares them with testdata/errors.txt.
type provoked struct {
	*testing.T
	text   strings.Builder
	change []string // what differs from run to run, and what stands for it
}

// add notes an error that must be of a kind; nil: of none that a caller can name.
func (p *provoked) add(what string, err, kind error) {
	p.Helper()
	if err == nil {
		p.Errorf("%s: no error", what)
		return
	}
	if kind != nil && !errors.Is(err, kind) {
		p.Errorf("%s: %v\nis no %q", what, err, kind)
	}
	p.say(what, err.Error())
}

func (p *provoked) say(what, text string) {
	text = strings.NewReplacer(p.change...).Replace(text)
	for pattern, stands := range map[string]string{`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`: "ID", `max_connections allows \d+`: "max_connections allows N",
		`(dial error: dial tcp \S+ connect\w*: ).*`: "${1}REASON"} {
		text = regexp.MustCompile(pattern).ReplaceAllString(text, stands)
	}
	fmt.Fprintf(&p.text, "%s\n\t%s\n", what, strings.ReplaceAll(text, "\n", "\n\t"))
}

func (p *provoked) section(name string) { fmt.Fprintf(&p.text, "\n# %s\n\n", name) }

func (p *provoked) compare() {
	p.Helper()
	file := filepath.Join("testdata", "errors.txt")
	got := strings.TrimPrefix(p.text.String(), "\n")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			p.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		p.Fatal(err)
	}
	wanted := strings.Split(string(want), "\n")
	for i, line := range strings.Split(got, "\n") {
		if i >= len(wanted) || line != wanted[i] {
			p.Errorf("line %d of %s is not what the library says, which is\n%s\n(go test ./sqlq -run TestErrorsAreWords -update writes it anew)", i+1, file, line)
			return
		}
	}
}

// Every error that a caller can be given is a sentence: what happened, where, and what to do. They stand in
// testdata/errors.txt to be read.
func TestErrorsAreWords(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := poolOn(t, url)
	p := &provoked{T: t, change: []string{
		fmt.Sprintf("version %d", migrations.Latest()), "version N",
		fmt.Sprintf("needs %d", migrations.Latest()), "needs N", fmt.Sprintf("knows %d", migrations.Latest()), "knows N",
		fmt.Sprintf("version %d", migrations.Latest()+1), "version N+1", fmt.Sprintf("version %d", migrations.First()), "version 1st",
		fmt.Sprintf("from %d on", migrations.Latest()+1), "from N+1 on", fmt.Sprintf("made for %d", migrations.Latest()), "made for N",
		admin.Config().ConnConfig.Database, "DATABASE",
		fmt.Sprintf("user=%s", admin.Config().ConnConfig.User), "user=USER",
	}}
	p.section("Open")
	provokeOpen(p, url)
	p.section("Send, Publish and their like")
	c := open(t, admin, sqlq.Config{MaxBody: 1000, Routes: map[string]string{"post.Letter": "post", "post.Mute": "post", "pooled.Plain": "office"}})
	provokeSend(p, c)
	p.section("Roles without a privilege")
	provokeGrants(p, url, admin)
	p.section("Prepare and Run")
	provokeRun(p, admin, c)
	p.section("Through a delivery, and in the error table")
	provokeFailures(p, admin, c)
	p.section("A closed client")
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.add("Send", c.Send(t.Context(), letter{}), sqlq.ErrClosed)
	p.add("Run", c.Run(t.Context(), receiveLetters("post")), sqlq.ErrClosed)
	p.add("Prepare", c.Prepare(t.Context(), receiveLetters("post")), sqlq.ErrClosed)
	p.compare()
}

func provokeOpen(p *provoked, url string) {
	refused := func(what string, pool *pgxpool.Pool, config sqlq.Config, kind error) {
		p.Helper()
		_, err := sqlq.Open(p.Context(), pool, config)
		p.add(what, err, kind)
	}
	good := poolOn(p, url)
	refused("no pool", nil, sqlq.Config{}, nil)
	refused("no schema", good, sqlq.Config{Schema: "other"}, sqlq.ErrSchemaMissing)
	newer, older := newPool(p), newPool(p)
	execSQL(p, newer, `INSERT INTO sqlq.sqlq_migration (version_id, is_applied) VALUES ($1, true)`, migrations.Latest()+1)
	execSQL(p, newer, fmt.Sprintf(`CREATE OR REPLACE FUNCTION sqlq.oldest_library() RETURNS bigint LANGUAGE sql AS 'SELECT %d::bigint'`, migrations.Latest()+1))
	refused("newer schema", newer, sqlq.Config{}, sqlq.ErrSchemaNewer)
	execSQL(p, older, `DELETE FROM sqlq.sqlq_migration WHERE version_id > $1`, migrations.First())
	refused("older schema", older, sqlq.Config{}, sqlq.ErrSchemaOutdated)
	one := good.Config()
	one.MaxConns = 1
	small, err := pgxpool.NewWithConfig(p.Context(), one)
	if err != nil {
		p.Fatal(err)
	}
	defer small.Close()
	refused("a pool of one", small, sqlq.Config{}, sqlq.ErrTooFewConnections)
	refused("nobody there", poolOn(p, "postgres://sqlq:secret@127.0.0.1:1/shop"), sqlq.Config{}, nil)
	refused("nothing fits", good, sqlq.Config{Schema: "", HoldLimit: time.Minute, BatchLimit: -1, ReceiveConnections: -1, MaxBody: -1, LeaseTime: time.Millisecond,
		ListenURL: "postgres://u:secret@h:port/d", Codecs: []sqlq.Codec{{ContentType: "x"}}, Routes: map[string]string{"post.Letter": "a queue"}}, nil)
	refused("negative", good, sqlq.Config{DrainTimeout: -1}, nil)
}

func provokeSend(p *provoked, c *sqlq.Client) {
	ctx := p.Context()
	p.add("no route", c.Send(ctx, titled{Type: "post.Parcel"}), sqlq.ErrNoRoute)
	p.add("an event is sent", c.Send(ctx, posted{}), sqlq.ErrIsEvent)
	p.add("a command is published", c.Publish(ctx, letter{}), sqlq.ErrNotEvent)
	p.add("an event to one queue", c.Publish(ctx, posted{}, sqlq.To("post")), sqlq.ErrIsEvent)
	p.add("no queue", c.Send(ctx, letter{}), sqlq.ErrNoQueue)
	p.add("no queue, many", c.SendMany(ctx, []sqlq.Message{letter{}, letter{}}), sqlq.ErrNoQueue)
	p.add("no queue, several", c.SendMany(ctx, []sqlq.Message{letter{}, pooledPlain{}}), sqlq.ErrNoQueue)
	p.add("no queue, delayed", c.Send(ctx, letter{}, sqlq.Delay(time.Hour)), sqlq.ErrNoQueue)
	p.add("queue name", c.Send(ctx, letter{}, sqlq.To("post office")), sqlq.ErrInvalidName)
	p.add("type name", c.Send(ctx, titled{Type: "a letter"}, sqlq.To("post")), sqlq.ErrInvalidName)
	p.add("header name", c.Send(ctx, letter{}, sqlq.WithHeader("a\x00b", "")), sqlq.ErrInvalidName)
	p.add("header of the library", c.Send(ctx, letter{}, sqlq.WithHeader("sqlq-x", "")), sqlq.ErrInvalidName)
	p.add("header value", c.Send(ctx, letter{}, sqlq.WithHeader("x", "\x00")), sqlq.ErrInvalidName)
	p.add("correlation id", c.Send(ctx, letter{}, sqlq.WithCorrelationID(strings.Repeat("x", 1001))), sqlq.ErrInvalidName)
	p.add("body", c.Send(ctx, letter{Where: strings.Repeat("x", 1000)}), sqlq.ErrBodyTooLarge)
	p.add("headers", c.Send(ctx, letter{}, sqlq.WithHeader("x", strings.Repeat("x", 64<<10))), sqlq.ErrHeadersTooLarge)
	p.add("encode", c.Send(ctx, mute{}), sqlq.ErrEncode)
	p.add("delay", c.Send(ctx, letter{}, sqlq.Delay(-time.Second)), sqlq.ErrInvalidTime)
	p.add("two delays", c.Send(ctx, letter{}, sqlq.Delay(time.Second), sqlq.At(time.Now())), sqlq.ErrInvalidTime)
	p.add("past", c.Send(ctx, letter{}, sqlq.At(time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC))), sqlq.ErrInvalidTime)
	p.add("time to live", c.Send(ctx, letter{}, sqlq.ExpiresIn(0)), sqlq.ErrInvalidTime)
	p.add("nil", c.Send(ctx, nil), nil)
	p.add("one of many", c.SendMany(ctx, []sqlq.Message{letter{}, posted{}}), sqlq.ErrIsEvent)
	p.add("an id for many", c.SendMany(ctx, []sqlq.Message{letter{}}, sqlq.WithID(sqlq.NewID())), nil)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	p.add("ended context", c.Send(ended, letter{}), context.Canceled)
	p.add("ended context, many", c.SendMany(ended, []sqlq.Message{letter{}, letter{}}), context.Canceled)
	_, err := sqlq.ParseID("17")
	p.add("ParseID", err, nil)
	_, err = sqlq.ParseID("01890a5d-ac96-774b-bcce-b302099a805x")
	p.add("ParseID", err, nil)
}

func provokeGrants(p *provoked, url string, admin *pgxpool.Pool) {
	role, pool := newRole(p.T, url, "words_")
	p.change = append(p.change, role, "ROLE")
	ctx := p.Context()
	_, err := sqlq.Open(ctx, pool, sqlq.Config{})
	p.add("Open", err, sqlq.ErrPermissionDenied)
	execSQL(p, admin, `SELECT sqlq.create_queue('theirs')`)
	execSQL(p, admin, `SELECT sqlq.create_queue('mine')`)
	execSQL(p, admin, `SELECT sqlq.grant_role($1, 'producer', ARRAY['mine'])`, role)
	c := open(p, pool, sqlq.Config{})
	p.add("Send", c.Send(ctx, letter{}, sqlq.To("theirs")), sqlq.ErrPermissionDenied)
	p.add("Send, delayed", c.Send(ctx, letter{}, sqlq.To("theirs"), sqlq.Delay(time.Hour)), sqlq.ErrPermissionDenied)
	p.add("Run", c.Run(ctx, receiveLetters("mine")), sqlq.ErrPermissionDenied)
	p.add("Run, no queue", c.Run(ctx, receiveLetters("new")), sqlq.ErrPermissionDenied)
	p.add("Prepare", c.Prepare(ctx, receiveLetters("mine")), sqlq.ErrPermissionDenied)
}

func provokeRun(p *provoked, pool *pgxpool.Pool, c *sqlq.Client) {
	ctx := p.Context()
	letters := receiveLetters("post").Handlers[0]
	events := sqlq.Handle(func(context.Context, *sqlq.Delivery[posted]) error { return nil })
	p.add("none", c.Run(ctx), sqlq.ErrInvalidEndpoint)
	p.add("zero", c.Run(ctx, sqlq.Endpoint{}), sqlq.ErrInvalidEndpoint)
	p.add("zero handler", c.Run(ctx, sqlq.Endpoint{Name: "post", Handlers: []sqlq.Handler{{}}}), sqlq.ErrInvalidEndpoint)
	p.add("two handlers", c.Run(ctx, sqlq.Endpoint{Name: "post", Handlers: []sqlq.Handler{letters, letters}}), sqlq.ErrInvalidEndpoint)
	p.add("given twice", c.Run(ctx, receiveLetters("post"), receiveLetters("post")), sqlq.ErrInvalidEndpoint)
	p.add("routed elsewhere", c.Run(ctx, receiveLetters("office")), sqlq.ErrInvalidEndpoint)
	p.add("two receivers", open(p, pool, sqlq.Config{}).Run(ctx, receiveLetters("post"), receiveLetters("office")), sqlq.ErrInvalidEndpoint)
	p.add("routed event", open(p, pool, sqlq.Config{Routes: map[string]string{"post.Posted": "post"}}).Run(ctx, sqlq.Endpoint{Name: "post", Handlers: []sqlq.Handler{events}}), sqlq.ErrInvalidEndpoint)
	p.add("numbers", c.Run(ctx, sqlq.Endpoint{Name: "post", Handlers: []sqlq.Handler{letters}, Concurrency: -1, Retry: sqlq.RetryPolicy{Jitter: 2, Delays: []time.Duration{-1}}}), sqlq.ErrInvalidEndpoint)
	p.add("attempts", c.Run(ctx, sqlq.Endpoint{Name: "post", Handlers: []sqlq.Handler{letters}, Retry: sqlq.RetryPolicy{Immediate: 1 << 20}}), sqlq.ErrInvalidEndpoint)
	p.add("connections", open(p, pool, sqlq.Config{ReceiveConnections: 10_000_000}).Run(ctx, receiveLetters("post")), sqlq.ErrTooFewConnections)
	p.add("another database to listen", open(p, pool, sqlq.Config{ListenURL: pgtest.Empty(p)}).Run(ctx, receiveLetters("post")), sqlq.ErrListenURLMismatch)
	mustExist := receiveLetters("post")
	mustExist.Name, mustExist.MustExist = "lost", true
	p.add("queue that must exist", open(p, pool, sqlq.Config{}).Run(ctx, mustExist), sqlq.ErrNoQueue)
	_, err := open(p, pool, sqlq.Config{}).Receive(ctx, "lost", 1)
	p.add("nothing to receive from", err, sqlq.ErrNoQueue)
	_, err = open(p, pool, sqlq.Config{}).Receive(ctx, "post", 0)
	p.add("nothing to receive", err, nil)
	p.add("nobody there to listen", open(p, pool, sqlq.Config{ListenURL: "postgres://sqlq:secret@127.0.0.1:1/shop"}).Run(ctx, receiveLetters("post")), nil)
}

// bundle is a command whose handler takes the receive transaction.
type bundle struct{ How string }

func (bundle) MessageType() string { return "post.Bundle" }

// provokeFailures makes messages fail one after the other, and notes what their handlers were told and what the error
// table keeps.
func provokeFailures(p *provoked, pool *pgxpool.Pool, c *sqlq.Client) {
	ctx := p.Context()
	told := make(chan error, 100)
	tell := func(err error) error { told <- err; return err }
	var late *sqlq.Incoming
	plain := func(ctx context.Context, d *sqlq.Delivery[letter]) error {
		late = d.Incoming
		switch d.Message.Where {
		case "past the delivery":
			return tell(c.Send(ctx, letter{}))
		case "no route":
			return tell(d.Send(titled{Type: "post.Parcel"}))
		case "no queue":
			return d.Send(letter{}, sqlq.To("nowhere"))
		case "panics":
			panic("no stamp")
		case "exits":
			runtime.Goexit()
		}
		return nil
	}
	inTx := func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[bundle]) error {
		exec := func(sql string) error { _, err := tx.Exec(ctx, sql); return err }
		switch d.Message.How {
		case "commits":
			return tell(tx.Commit(ctx))
		case "rolls back":
			return tell(tx.Rollback(ctx))
		case "commits in SQL":
			return tell(exec(`COMMIT`))
		case "commits past the tx":
			_, err := tx.Conn().Exec(ctx, `COMMIT`)
			return err
		case "swallows":
			_ = exec(`SELECT * FROM missing`)
		case "breaks a deferred constraint":
			return exec(`INSERT INTO public.entry VALUES (1, 7)`)
		case "loses its connection":
			return exec(`SELECT pg_terminate_backend(pg_backend_pid())`)
		}
		return nil
	}
	execSQL(p, pool, `CREATE TABLE public.entry (id int PRIMARY KEY, page int CONSTRAINT page_is_there REFERENCES public.entry DEFERRABLE INITIALLY DEFERRED)`)
	stop := run(p, c, sqlq.Endpoint{Name: "post", Retry: noRetry, UnknownWait: -1, Handlers: []sqlq.Handler{sqlq.Handle(plain), sqlq.HandleTx(inTx)}})
	eventuallyCount(p, pool, 1, `SELECT count(*) FROM sqlq.instance`)
	seen := 0
	failed := func(what string, kind error, send func() error) {
		p.Helper()
		if err := send(); err != nil {
			p.Fatalf("%s: %v", what, err)
		}
		seen++
		eventuallyCount(p, pool, seen, `SELECT count(*) FROM sqlq.error`)
		select {
		case err := <-told:
			p.add(what+", the handler is told", err, kind)
		default:
		}
		rows := failedRows(p, pool)
		if row := rows[len(rows)-1]; kind != nil && !strings.Contains(strings.Join(row.Chain, "\n"), kind.Error()) {
			p.Errorf("%s: the chain %q has no %q", what, row.Chain, kind)
		}
		p.say(what, rows[len(rows)-1].Message)
	}
	for _, f := range []struct {
		how  string
		kind error
	}{{"past the delivery", sqlq.ErrInHandler}, {"no route", sqlq.ErrNoRoute}, {"no queue", nil}, {"panics", nil}, {"exits", nil}} {
		failed(f.how, f.kind, func() error { return c.Send(ctx, letter{Where: f.how}) })
	}
	for _, f := range []struct {
		how  string
		kind error
	}{{"commits", sqlq.ErrTransactionOwned}, {"rolls back", sqlq.ErrTransactionOwned}, {"commits in SQL", sqlq.ErrTransactionOwned}, {"commits past the tx", sqlq.ErrTransactionOwned},
		{"swallows", sqlq.ErrSQLErrorIgnored}, {"breaks a deferred constraint", nil}, {"loses its connection", sqlq.ErrConnectionLost}} {
		failed(f.how, f.kind, func() error { return c.Send(ctx, bundle{f.how}) })
	}
	store := func(messageType, body, headers string, attempt int) func() error {
		return func() error {
			_, err := pool.Exec(ctx, `WITH m AS (INSERT INTO sqlq.q_post (id, sent_at, type, headers, body, attempt) VALUES (sqlq.uuid_v7(), now(), $1, $2, $3, $4))
				SELECT pg_notify('sqlq', '')`, messageType, []byte(headers), []byte(body), attempt)
			return errors.Join(err, c.Send(ctx, letter{})) // wakes the receiver
		}
	}
	failed("nobody handles it", sqlq.ErrUnknownType, store("post.Parcel", `{}`, `{}`, 0))
	failed("body", sqlq.ErrUndecodable, store("post.Letter", `{"N": "seven"}`, `{}`, 0))
	failed("content type", sqlq.ErrUndecodable, store("post.Letter", `<n/>`, `{"sqlq-content-type": "application/xml"}`, 0))
	failed("headers", sqlq.ErrUndecodable, store("post.Letter", `{}`, `{"a": 1}`, 0))
	failed("crashes", sqlq.ErrCrashed, store("post.Letter", `{}`, `{"sqlq-crashes": "3"}`, 3))
	stop()
	p.add("a delivery that has ended", late.Send(letter{}), nil)
}
