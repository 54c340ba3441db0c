package sqlq_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
)

// wireWay leaves one row in a table, or several that are alike; done is called when it has been read.
type wireWay func(t *testing.T, pool *pgxpool.Pool) (done func())

// wireCases are what the library writes: one file for each, whichever of the ways it is written in.
var wireCases = []struct {
	name, about, table string
	ways               []wireWay
}{
	{"command", "a command without anything beside", "q_shop", []wireWay{
		sending(func(t *testing.T, c *sqlq.Client, _ *pgxpool.Pool) error {
			return c.Send(t.Context(), wirePlaceOrder{17, "café ☕ <&> \u2028"}, sqlq.To("shop"))
		}),
		sending(func(t *testing.T, c *sqlq.Client, pool *pgxpool.Pool) error {
			return inTx(t, pool, func(tx pgx.Tx) error {
				return c.SendTx(t.Context(), tx, wirePlaceOrder{17, "café ☕ <&> \u2028"}, sqlq.To("shop"))
			})
		}),
		sending(many(2)),
		sending(many(sqlq.CopyFrom)),
	}},
	{"command-with-all", "a command with an id, headers, a correlation id and a time to live", "q_shop", []wireWay{
		sending(func(t *testing.T, c *sqlq.Client, _ *pgxpool.Pool) error {
			return c.Send(t.Context(), wirePlaceOrder{Order: 18}, append(all(), sqlq.To("shop"))...)
		}),
		sending(func(t *testing.T, c *sqlq.Client, pool *pgxpool.Pool) error {
			return inTx(t, pool, func(tx pgx.Tx) error {
				return c.SendTx(t.Context(), tx, wirePlaceOrder{Order: 18}, append(all(), sqlq.To("shop"))...)
			})
		}),
	}},
	{"event", "an event's copy for one subscriber", "q_shop", []wireWay{
		sending(func(t *testing.T, c *sqlq.Client, _ *pgxpool.Pool) error {
			return c.Publish(t.Context(), wireOrderPlaced{17}, sqlq.WithHeader("tenant", "north"))
		}),
		sending(func(t *testing.T, c *sqlq.Client, pool *pgxpool.Pool) error {
			return inTx(t, pool, func(tx pgx.Tx) error {
				return c.PublishTx(t.Context(), tx, wireOrderPlaced{17}, sqlq.WithHeader("tenant", "north"))
			})
		}),
	}},
	{"content-type", "a command of another format than JSON", "q_shop", []wireWay{
		func(t *testing.T, pool *pgxpool.Pool) func() {
			codec := wireCodec
			codec.Encodes = nil
			c := open(t, pool, sqlq.Config{Codecs: []sqlq.Codec{codec}})
			if err := c.Send(t.Context(), wirePlaceOrder{Order: 19}, sqlq.To("shop")); err != nil {
				t.Fatal(err)
			}
			return nil
		},
	}},
	{"from-a-handler", "a command that a handler has sent, in the conversation of the message it handled", "q_shop", []wireWay{
		handling(func(d *sqlq.Delivery[letter]) error {
			return d.Send(wirePlaceOrder{Order: 20}, sqlq.To("shop"), sqlq.WithHeader("tenant", "north"))
		}),
	}},
	{"event-from-a-handler", "an event that a handler has published, about something else", "q_shop", []wireWay{
		handling(func(d *sqlq.Delivery[letter]) error {
			return d.Publish(wireOrderPlaced{20}, sqlq.WithCorrelationID("order-20"))
		}),
	}},
	{"by-sql", "a command that was sent by SQL", "q_shop", []wireWay{
		bySQL(`SELECT sqlq.send('shop', 'shop.PlaceOrder', '{"Order": 21, "Note": "by SQL"}', '{"tenant": "north", "a": "ä \" \\ \n"}')`),
		bySQL(`SELECT sqlq.send_many('shop', 'shop.PlaceOrder', ARRAY['{"Order": 21, "Note": "by SQL"}']::json[], '{"tenant": "north", "a": "ä \" \\ \n"}')`),
	}},
	{"delayed", "a command that is deferred", "delayed", []wireWay{
		sending(func(t *testing.T, c *sqlq.Client, _ *pgxpool.Pool) error {
			return c.Send(t.Context(), wirePlaceOrder{Order: 22}, sqlq.To("shop"), sqlq.Delay(time.Hour), sqlq.WithHeader("tenant", "north"))
		}),
		sending(func(t *testing.T, c *sqlq.Client, _ *pgxpool.Pool) error {
			return c.Send(t.Context(), wirePlaceOrder{Order: 22}, sqlq.To("shop"), sqlq.At(time.Now().Add(time.Hour)), sqlq.WithHeader("tenant", "north"))
		}),
	}},
	{"delayed-event", "an event's copy that is deferred", "delayed", []wireWay{
		sending(func(t *testing.T, c *sqlq.Client, _ *pgxpool.Pool) error {
			return c.Publish(t.Context(), wireOrderPlaced{22}, sqlq.Delay(time.Hour))
		}),
	}},
	{"retried", "a command whose first round of attempts has failed", "delayed", []wireWay{
		failing(sqlq.RetryPolicy{Immediate: 1, Delays: []time.Duration{time.Hour}}, "delayed", wirePlaceOrder{Order: 23}),
	}},
	{"unknown-type", "a command that waits for a process that knows its type", "delayed", []wireWay{
		func(t *testing.T, pool *pgxpool.Pool) func() {
			c := open(t, pool, sqlq.Config{})
			stop := run(t, c, sqlq.Endpoint{Name: "shop", Handlers: []sqlq.Handler{sqlq.Handle(func(context.Context, *sqlq.Delivery[letter]) error { return nil })}})
			if err := c.Send(t.Context(), wirePlaceOrder{Order: 24}, sqlq.To("shop"), sqlq.WithHeader("tenant", "north")); err != nil {
				t.Fatal(err)
			}
			eventuallyCount(t, pool, 1, `WITH kept AS (UPDATE sqlq.delayed SET due_at = due_at + interval '1 hour' RETURNING 1) SELECT count(*) FROM kept`)
			stop()
			return nil
		},
	}},
	{"failed", "a command that has failed for good", "error", []wireWay{
		failing(sqlq.RetryPolicy{Immediate: 1, Delays: []time.Duration{}}, "error", wirePlaceOrder{Order: 25}),
	}},
	{"replayed", "a command that an operator has replayed", "q_shop", []wireWay{
		func(t *testing.T, pool *pgxpool.Pool) func() {
			failing(noRetry, "error", wirePlaceOrder{Order: 26})(t, pool)
			execSQL(t, pool, `SELECT sqlq.replay('shop')`)
			return nil
		},
	}},
	{"after-a-crash", "a command that a process may have died of", "q_shop", []wireWay{
		func(t *testing.T, pool *pgxpool.Pool) func() {
			execSQL(t, pool, `INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, headers, body)
				VALUES (-1, 'shop', 1, sqlq.uuid_v7(), now(), 1, 'shop.PlaceOrder', '{"tenant":"north"}', '{"Order":27,"Note":""}')`)
			execSQL(t, pool, `SELECT sqlq.recover_leased()`)
			return nil
		},
	}},
	{"leased", "a command whose handler runs for long", "leased", []wireWay{
		func(t *testing.T, pool *pgxpool.Pool) func() {
			c := open(t, pool, sqlq.Config{HoldLimit: 10 * time.Millisecond})
			goOn := make(chan struct{})
			stop := run(t, c, wireEndpoint(func(*sqlq.Incoming, any) error { <-goOn; return nil }))
			if err := c.Send(t.Context(), wirePlaceOrder{Order: 28}, sqlq.To("shop"), sqlq.WithHeader("tenant", "north")); err != nil {
				t.Fatal(err)
			}
			eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.leased`)
			return func() { close(goOn); stop() }
		},
	}},
}

func all() []sqlq.SendOption {
	id, _ := sqlq.ParseID("0198c0de-0000-7000-8000-000000000001")
	return []sqlq.SendOption{sqlq.WithID(id), sqlq.WithHeader("tenant", "north"), sqlq.WithHeader("x.Y_z-1", "ä \" \\ \n </> 漢"), sqlq.WithCorrelationID("SO-17"), sqlq.ExpiresIn(99 * 365 * 24 * time.Hour)}
}

func many(n int) func(t *testing.T, c *sqlq.Client, pool *pgxpool.Pool) error {
	return func(t *testing.T, c *sqlq.Client, pool *pgxpool.Pool) error {
		ms := slices.Repeat([]sqlq.Message{wirePlaceOrder{17, "café ☕ <&> \u2028"}}, n)
		if err := c.SendMany(t.Context(), ms, sqlq.To("shop")); err != nil {
			return err
		}
		return do(pool, `DELETE FROM sqlq.q_shop WHERE seq < (SELECT max(seq) FROM sqlq.q_shop)`)
	}
}

func sending(send func(t *testing.T, c *sqlq.Client, pool *pgxpool.Pool) error) wireWay {
	return func(t *testing.T, pool *pgxpool.Pool) func() {
		if err := send(t, open(t, pool, sqlq.Config{}), pool); err != nil {
			t.Fatal(err)
		}
		return nil
	}
}

func bySQL(sql string) wireWay {
	return func(t *testing.T, pool *pgxpool.Pool) func() {
		execSQL(t, pool, sql)
		return nil
	}
}

// handling has another endpoint's handler send something.
func handling(handle func(d *sqlq.Delivery[letter]) error) wireWay {
	return func(t *testing.T, pool *pgxpool.Pool) func() {
		c := open(t, pool, sqlq.Config{})
		stop := run(t, c, sqlq.Endpoint{Name: "desk", Handlers: []sqlq.Handler{sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error { return handle(d) })}})
		if err := c.Send(t.Context(), letter{}, sqlq.To("desk")); err != nil {
			t.Fatal(err)
		}
		eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.q_shop`)
		stop()
		return nil
	}
}

// failing has a message fail until it is in a table.
func failing(policy sqlq.RetryPolicy, table string, m sqlq.Message) wireWay {
	return func(t *testing.T, pool *pgxpool.Pool) func() {
		c := open(t, pool, sqlq.Config{})
		e := wireEndpoint(func(*sqlq.Incoming, any) error { return errors.Join(errors.New("no stock")) })
		e.Retry = policy
		stop := run(t, c, e)
		if err := c.Send(t.Context(), m, sqlq.To("shop"), sqlq.WithHeader("tenant", "north")); err != nil {
			t.Fatal(err)
		}
		eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.`+table)
		stop()
		return nil
	}
}
