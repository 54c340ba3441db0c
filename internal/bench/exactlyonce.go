package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/lab"
)

var exactlyOnceBenchmark = Benchmark{
	Name:  "exactlyonce",
	Short: "Handle messages in the transaction that removes them",
	Long: `Handle messages with a HandleTx handler that inserts one row into a table of its own.

The floors have the rows in hand already. On as many connections as the receiver has they do the same INSERT, and with
it, in the same round trip, the DELETE of the message's row by its key: in transactions of 50 without savepoints, and one
message a transaction.

The same again with a handler that updates one of 100 rows, whose locks the messages of a batch fight for, against one
message a transaction. At the end it is checked that each message had its effect once.`,
	N: 30_000, NUsage: "messages handled in a round",
	ConcurrencyUsage: "messages handled at a time (default 4 × cores)",
	Duration:         30 * time.Second,
	run:              func(ctx context.Context, l *rig) (Result, error) { return exactlyOnceRun{l}.run(ctx) },
}

// What the handlers and the floors do.
const (
	insertEffect = `INSERT INTO ` + schema + `.effect (n, note) VALUES ($1, $2)`
	updateHot    = `UPDATE ` + schema + `.hot SET n = n + 1 WHERE id = $1`
	effectText   = "the order was placed"
	hotRows      = 100
	floorBatch   = 50
)

// hotRow picks a row for a message, as if by chance.
func hotRow(n int64) int64 { return int64(uint64(n) * 0x9e3779b97f4a7c15 >> 33 % hotRows) }

type exactlyOnceResult struct {
	Head
	Messages      int     `json:"messages"`
	Rounds        int     `json:"rounds"`
	Connections   int     `json:"connections"`
	Rate          float64 `json:"rate"`
	FloorRate     float64 `json:"floor_rate"`
	Ratio         float64 `json:"ratio"`
	SingleRate    float64 `json:"single_rate"`
	RatioSingle   float64 `json:"ratio_single"`
	HotRate       float64 `json:"hot_rate"`
	HotSingleRate float64 `json:"hot_single_rate"`
	RatioHot      float64 `json:"ratio_hot"`
	Deadlocks     int64   `json:"deadlocks"`
}

// exactlyOnceRun is a run of `sqlq bench exactlyonce`.
type exactlyOnceRun struct{ *rig }

func (l exactlyOnceRun) run(ctx context.Context) (Result, error) {
	const queue = "exactlyonce"
	if err := l.db.queues(ctx, queue); err != nil {
		return nil, err
	}
	if err := l.makeEffects(ctx); err != nil {
		return nil, err
	}
	deadlocks, err := l.stats.deadlocks(ctx)
	if err != nil {
		return nil, err
	}
	r := &exactlyOnceResult{Messages: l.N, Connections: receiveConnections}
	few := max(1, l.N/5) // one a transaction takes its time
	var batched, floor, single, hot, hotSingle lab.Series
	r.Rounds, err = l.rounds(ctx, enoughRounds, func(n int) error {
		return alternate(n,
			l.measure(&batched, n, "HandleTx, INSERT", func() (float64, error) { return l.handleTx(ctx, queue, inserting, l.N) }),
			l.measure(&floor, n, "floor, INSERT, 50 a transaction", func() (float64, error) { return l.transactions(ctx, inserting, l.N, floorBatch) }),
			l.measure(&single, n, "floor, INSERT, one a transaction", func() (float64, error) { return l.transactions(ctx, inserting, few, 1) }),
			l.measure(&hot, n, "HandleTx, UPDATE of hot rows", func() (float64, error) { return l.handleTx(ctx, queue, updating, max(1, l.N/2)) }),
			l.measure(&hotSingle, n, "floor, UPDATE of hot rows, one a transaction", func() (float64, error) { return l.transactions(ctx, updating, few, 1) }),
		)
	})
	if err != nil {
		return nil, err
	}
	after, err := l.stats.deadlocks(ctx)
	if err != nil {
		return nil, err
	}
	r.Rate, r.FloorRate, r.SingleRate = round(batched.Median(), 0), round(floor.Median(), 0), round(single.Median(), 0)
	r.HotRate, r.HotSingleRate = round(hot.Median(), 0), round(hotSingle.Median(), 0)
	r.Ratio, r.RatioSingle = ratio(batched.Median(), floor.Median()), ratio(batched.Median(), single.Median())
	r.RatioHot, r.Deadlocks = ratio(hot.Median(), hotSingle.Median()), after-deadlocks
	return r, nil
}

// makeEffects makes the tables that handlers write into.
func (l exactlyOnceRun) makeEffects(ctx context.Context) error {
	_, err := l.db.pool.Exec(ctx, `
		CREATE TABLE `+schema+`.effect (n bigint PRIMARY KEY, note text NOT NULL);
		CREATE TABLE `+schema+`.hot (id bigint PRIMARY KEY, n bigint NOT NULL)`)
	return err
}

// measure returns a function that adds what f measures in a round to a series.
func (l exactlyOnceRun) measure(into *lab.Series, n int, what string, f func() (float64, error)) func() error {
	return func() error {
		l.progress("round %d: %s", n+1, what)
		rate, err := f()
		*into = append(*into, rate)
		return err
	}
}

// handleTx measures the library, and checks the effects of its handlers.
func (l exactlyOnceRun) handleTx(ctx context.Context, queue string, kind handlerKind, n int) (float64, error) {
	if err := l.prepareEffects(ctx, queue); err != nil {
		return 0, err
	}
	if err := l.fill(ctx, queue, n); err != nil {
		return 0, err
	}
	receipt, err := l.receivers.receive(ctx, 1, spec{Queues: []string{queue}, Handler: kind}, int64(n))
	if err != nil {
		return 0, err
	}
	return receipt.rate(), l.checkEffects(ctx, queue, kind, n)
}

func (l exactlyOnceRun) prepareEffects(ctx context.Context, queue string) error {
	if err := l.db.empty(ctx, queue); err != nil {
		return err
	}
	_, err := l.db.pool.Exec(ctx, fmt.Sprintf(`
		TRUNCATE %[1]s.effect, %[1]s.hot;
		INSERT INTO %[1]s.hot SELECT id, 0 FROM generate_series(0, %[2]d) id`, schema, hotRows-1))
	return err
}

// checkEffects sees that each message had its effect once, and is gone.
func (l exactlyOnceRun) checkEffects(ctx context.Context, queue string, kind handlerKind, n int) error {
	var effects, left int64
	err := l.db.pool.QueryRow(ctx, fmt.Sprintf(`
		SELECT CASE WHEN $1 THEN (SELECT coalesce(sum(n), 0) FROM %[1]s.hot) ELSE (SELECT count(*) FROM %[1]s.effect) END::bigint,
			(SELECT count(*) FROM %[2]s)`, schema, table(queue)), kind == updating).Scan(&effects, &left)
	if err == nil && (effects != int64(n) || left != 0) {
		err = fmt.Errorf("%d messages had %d effects and %d are left", n, effects, left)
	}
	return err
}

// receiveConnections is the library's default of Config.ReceiveConnections, with which receiving processes run here.
const receiveConnections = 4

// transactions measures the floor: the statements of the handler and the deletion of the message, so many messages a
// transaction, on as many connections as the receiver has.
func (l exactlyOnceRun) transactions(ctx context.Context, kind handlerKind, n, each int) (float64, error) {
	if err := l.prepareEffects(ctx, floorQueue); err != nil {
		return 0, err
	}
	pool, conns, err := l.db.connectAll(ctx, receiveConnections)
	if err != nil {
		return 0, err
	}
	defer pool.Close()
	defer release(conns)
	bodies := make([][]byte, n)
	for i := range bodies {
		bodies[i] = newNote(int64(i), 0, l.Size).body()
	}
	if err := copyRows(ctx, conns[0], bodies); err != nil {
		return 0, err
	}
	rows, err := conns[0].Query(ctx, `SELECT seq FROM `+table(floorQueue)+` ORDER BY seq`)
	if err != nil {
		return 0, err
	}
	seqs, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return 0, err
	}

	errs := make([]error, len(conns))
	var all sync.WaitGroup
	began := time.Now()
	for i, conn := range conns {
		from, to := len(seqs)*i/len(conns), len(seqs)*(i+1)/len(conns)
		all.Go(func() {
			for at := from; at < to && errs[i] == nil; at += each {
				errs[i] = oneTransaction(ctx, conn, kind, int64(at), seqs[at:min(at+each, to)])
			}
		})
	}
	all.Wait()
	took := time.Since(began)
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	return perSecondOf(int64(n), took), l.checkEffects(ctx, floorQueue, kind, n)
}

// oneTransaction does what handlers do for messages first, first+1, … whose rows have these seqs: a round trip for each,
// and one for the commit. Where the handler is a batch handler it is one round trip for all of them.
func oneTransaction(ctx context.Context, conn *pgxpool.Conn, kind handlerKind, first int64, seqs []int64) error {
	if kind == insertingMany {
		return oneBatch(ctx, conn, first, seqs)
	}
	for i, seq := range seqs {
		b := &pgx.Batch{}
		if i == 0 {
			b.Queue(`BEGIN`)
		}
		if n := first + int64(i); kind == updating {
			b.Queue(updateHot, hotRow(n))
		} else {
			b.Queue(insertEffect, n, effectText)
		}
		b.Queue(`DELETE FROM `+table(floorQueue)+` WHERE seq = $1`, seq)
		if err := conn.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
	}
	_, err := conn.Exec(ctx, `COMMIT`)
	return err
}

// Tables implements Result.
func (r *exactlyOnceResult) Tables() []Table {
	t := Table{
		Title: fmt.Sprintf("Messages of %d bytes, %s a round, %d connections; %s",
			r.Size, lab.Thousands(int64(r.Messages)), r.Connections, ofRounds(r.Rounds)),
		Columns: []string{"", "messages", "HandleTx to it"},
	}
	t.add("HandleTx, one INSERT", perSecond(r.Rate), "")
	t.add("floor: INSERT and DELETE, 50 a transaction", perSecond(r.FloorRate), ratioText(r.Ratio))
	t.add("floor: INSERT and DELETE, one a transaction", perSecond(r.SingleRate), ratioText(r.RatioSingle))
	t.add("HandleTx, UPDATE of 100 hot rows", perSecond(r.HotRate), "")
	t.add("floor: UPDATE and DELETE, one a transaction", perSecond(r.HotSingleRate), ratioText(r.RatioHot))
	t.add("deadlocks", lab.Thousands(r.Deadlocks), "")
	return []Table{t}
}
