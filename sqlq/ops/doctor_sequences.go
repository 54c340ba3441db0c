package ops

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// checkSequences finds numbers that would be given out twice: after rows came from elsewhere, by a restore of the data alone
// or from a logical replica, which copies no sequences.
func (e *examination) checkSequences(ctx context.Context) (found []Finding, err error) {
	if !e.may {
		return nil, nil // the check of grants says so
	}
	behind, err := e.store.Behind(ctx, e.pool, e.queues)
	for _, t := range behind {
		found = append(found, problem(foundSequenceBehind, ofTable(t.Table),
			fmt.Sprintf("the numbers of %s go up to %d, and its sequence has given out %d", tableName(t.Table), t.Highest, t.Last),
			"it gives out numbers that rows have: what is stored there is refused as a duplicate key. Rows that came from a restore or from a logical replica bring no sequence along",
			e.store.CatchUpSQL(t)).inSQL().by(e.server.Role == e.owner || e.server.Superuser, t.Table, func(ctx context.Context) (string, error) { return e.catchUp(ctx, t) }))
	}
	return found, err
}

func (e *examination) catchUp(ctx context.Context, t query.Numbered) (did string, err error) {
	err = pgx.BeginFunc(ctx, e.pool, func(tx pgx.Tx) error {
		highest, err := e.store.CatchUp(ctx, tx, t)
		did = fmt.Sprintf("the sequence goes on after %d", highest)
		return err
	})
	return did, err
}
