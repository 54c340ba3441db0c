package query

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Numbered is a table whose rows have numbers from a sequence.
type Numbered struct {
	Table    string
	Column   string
	Sequence string
	Highest  int64 // number of a row; 0: there are none
	Last     int64 // number that the sequence has given out; 0: none
}

// numbered are the tables besides those of queues whose numbers must be new: a key is over them, or what they name.
var numbered = []Numbered{{Table: "error", Column: "seq"}, {Table: "operation", Column: "id"}, {Table: "instance", Column: "id"}, {Table: "leased", Column: "lease"}}

// numberedTogether is how many tables one statement looks at: the planner takes the longer the more there are.
const numberedTogether = 50

// Behind returns the tables of queues, and the others, whose sequence would give out numbers that rows have; those that the
// role may not read are left out. Locks nothing. Relies on the primary keys: it reads one entry of each, and all of leased,
// which is small.
func (s healthQueries) Behind(ctx context.Context, db DBTX, queues []string) (behind []Numbered, err error) {
	all := slices.Clone(numbered)
	for i, t := range all {
		all[i].Sequence = t.Table + "_" + t.Column + "_seq"
	}
	for _, q := range queues {
		all = append(all, Numbered{Table: "q_" + q, Column: "seq", Sequence: "s_" + q})
	}
	if all, err = s.readable(ctx, db, all); err != nil {
		return nil, err
	}
	for some := range slices.Chunk(all, numberedTogether) {
		each := make([]string, len(some))
		for i, t := range some {
			each[i] = fmt.Sprintf(`SELECT %d, coalesce((SELECT max(%s) FROM %s), 0)::bigint, coalesce(pg_sequence_last_value(%s::regclass), 0)`,
				i, t.Column, s.table(t.Table), quote(s.table(t.Sequence)))
		}
		rows, err := db.Query(ctx, strings.Join(each, ` UNION ALL `), pgx.QueryExecModeExec) // it differs with the queues
		if err != nil {
			return nil, err
		}
		var i int
		var highest, last int64
		if _, err := pgx.ForEachRow(rows, []any{&i, &highest, &last}, func() error {
			if highest > last {
				t := some[i]
				t.Highest, t.Last = highest, last
				behind = append(behind, t)
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return behind, nil
}

// readable returns those of the tables whose numbers, and sequence, the role may read. Locks nothing.
func (s healthQueries) readable(ctx context.Context, db DBTX, all []Numbered) (may []Numbered, err error) {
	tables, columns, sequences := make([]string, len(all)), make([]string, len(all)), make([]string, len(all))
	for i, t := range all {
		tables[i], columns[i], sequences[i] = s.table(t.Table), t.Column, s.table(t.Sequence)
	}
	var are []bool
	err = db.QueryRow(ctx, `
		SELECT array_agg(coalesce(has_column_privilege(to_regclass(t.name), t.col, 'SELECT') AND has_sequence_privilege(to_regclass(t.sequence), 'SELECT'), false) ORDER BY t.n)
		FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY t (name, col, sequence, n)`, tables, columns, sequences).Scan(&are)
	for i, readable := range are {
		if readable {
			may = append(may, all[i])
		}
	}
	return may, err
}

// CatchUp sets the sequence of a table to the highest number that a row has, if it is behind, and returns that number. It locks
// the table against writers for a moment, as whoever draws a number meanwhile could have it taken back, and waits for that
// lock for two seconds, because writers wait behind it. Takes the owner.
func (s healthQueries) CatchUp(ctx context.Context, tx DBTX, t Numbered) (highest int64, err error) {
	for _, sql := range []string{`SET LOCAL lock_timeout = '2s'`, fmt.Sprintf(`LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE`, s.table(t.Table))} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return 0, err
		}
	}
	sequence := quote(s.table(t.Sequence)) + `::regclass`
	err = tx.QueryRow(ctx, fmt.Sprintf(`
		SELECT setval(%[1]s, greatest((SELECT max(%[2]s) FROM %[3]s), pg_sequence_last_value(%[1]s), 1))`,
		sequence, t.Column, s.table(t.Table))).Scan(&highest)
	return highest, err
}

// CatchUpSQL is the statement that does what CatchUp does, but for the lock.
func (s healthQueries) CatchUpSQL(t Numbered) string {
	return fmt.Sprintf(`SELECT setval('%s', (SELECT max(%s) FROM %s))`, strings.ReplaceAll(s.table(t.Sequence), `'`, `''`), t.Column, s.table(t.Table))
}
