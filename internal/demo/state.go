package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// state is the state of the story at one moment.
type state struct {
	waiting  map[string]int64 // ready messages by queue, including those that a receiver has in hand
	retrying int64            // delayed retries
	leased   int64
	failed   int64 // in the error table

	placed, billed, shipped, rewarded int64 // rows of the business tables
}

// isQuiet reports whether there is nothing left to do, except in the queues of services that are down. Messages in the error
// table wait for an operator.
func (s state) isQuiet(down ...string) bool {
	for queue, n := range s.waiting {
		if n > 0 && !slices.Contains(down, queue) {
			return false
		}
	}
	return s.retrying == 0 && s.leased == 0
}

func (s state) String() string {
	return fmt.Sprintf("waiting: %v, retrying: %d, leased: %d, failed: %d; %d orders placed, %d billed, %d shipped",
		s.waiting, s.retrying, s.leased, s.failed, s.placed, s.billed, s.shipped)
}

// readState reads the state in one statement, so in one snapshot: a message that moves from one table to another is in
// exactly one of them. (The counts of package ops take one statement per table; a message could slip through between two of
// them, and the story would take a busy moment for the end.)
func readState(ctx context.Context, pool *pgxpool.Pool, queues []string) (state, error) {
	tables := map[string]string{
		"delayed": queueSchema + ".delayed", "leased": queueSchema + ".leased", "error": queueSchema + ".error",
		"orders": shopSchema + ".orders", "invoices": shopSchema + ".invoices", "shipments": shopSchema + ".shipments", "points": shopSchema + ".points",
	}
	for _, queue := range queues {
		tables["q_"+queue] = pgx.Identifier{queueSchema, "q_" + queue}.Sanitize()
	}
	var counts []string
	for name, table := range tables {
		counts = append(counts, fmt.Sprintf(`SELECT '%s', count(*) FROM %s`, name, table))
	}
	rows, err := pool.Query(ctx, strings.Join(counts, ` UNION ALL `), pgx.QueryExecModeExec)
	if err != nil {
		return state{}, fmt.Errorf("read the state: %w", err)
	}
	s := state{waiting: map[string]int64{}}
	var name string
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&name, &n}, func() error {
		switch name {
		case "delayed":
			s.retrying = n
		case "leased":
			s.leased = n
		case "error":
			s.failed = n
		case "orders":
			s.placed = n
		case "invoices":
			s.billed = n
		case "shipments":
			s.shipped = n
		case "points":
			s.rewarded = n
		default:
			s.waiting[strings.TrimPrefix(name, "q_")] = n
		}
		return nil
	})
	if err != nil {
		return state{}, fmt.Errorf("read the state: %w", err)
	}
	return s, nil
}
