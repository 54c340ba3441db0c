package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// filters are the ways to choose among the failed messages for which there is an index, and some together.
func (s *scene) filters() []namedFilter {
	three := 3
	rare := ops.Filter{Attempts: ops.Range{Min: &three, Max: &three}}
	byGroup := func(f ops.Filter, group string) ops.Filter { f.Group = group; return f }
	return []namedFilter{
		{"", ops.Filter{}},
		{"--status any", ops.Filter{Status: ops.StatusAny}},
		{"--queue sales", ops.Filter{Queue: "sales"}},
		{"--queue sales --status any", ops.Filter{Queue: "sales", Status: ops.StatusAny}},
		{"--type sales.Type0", ops.Filter{Type: "sales.Type0"}},
		{"--group group-0", ops.Filter{Group: "group-0"}},
		{"--id N", ops.Filter{Names: []string{s.number}}},
		{"--id UUID", ops.Filter{Names: []string{s.id}}},
		{"--since 1h", ops.Filter{Since: ops.Ago(time.Hour)}},
		{"--since 30h", ops.Filter{Since: ops.Ago(30 * time.Hour)}},
		{"--until 30h", ops.Filter{Until: ops.Ago(30 * time.Hour)}},
		{"--since 30h --until 29h", ops.Filter{Since: ops.Ago(30 * time.Hour), Until: ops.Ago(29 * time.Hour)}},
		{"--attempts 3", rare},
		{"--attempts 3 --group group-0", byGroup(rare, "group-0")},
		{"--queue sales --type sales.Type0", ops.Filter{Queue: "sales", Type: "sales.Type0"}},
		{"--queue sales --group group-0", ops.Filter{Queue: "sales", Group: "group-0"}},
		{"--queue sales --since 30h --until 29h", ops.Filter{Queue: "sales", Since: ops.Ago(30 * time.Hour), Until: ops.Ago(29 * time.Hour)}},
		{"--type sales.Type0 --since 1h --error /timeout/", ops.Filter{Type: "sales.Type0", Since: ops.Ago(time.Hour), Error: "/timeout/"}},
		{"--group group-0 --since 1h", ops.Filter{Group: "group-0", Since: ops.Ago(time.Hour)}},
	}
}

type namedFilter struct {
	name   string
	filter ops.Filter
}

// filterLooks are all looks at failed messages, as somebody, by all filters.
func (s *scene) filterLooks(o *ops.Ops, who string) (looks []looking) {
	for _, f := range s.filters() {
		list := func(order ops.Order) func(context.Context) (int, error) {
			page := f.filter
			page.Order, page.Limit = order, 51
			return func(ctx context.Context) (int, error) {
				found, err := o.Failed.List(ctx, page)
				return len(found), err
			}
		}
		all := f.filter
		all.All = all.ChoosesAll()
		looks = append(looks,
			looking{fmt.Sprintf("%s: ls %s", who, f.name), list(ops.Newest)},
			looking{fmt.Sprintf("%s: ls %s --order oldest", who, f.name), list(ops.Oldest)},
			looking{fmt.Sprintf("%s: count %s", who, f.name), func(ctx context.Context) (int, error) {
				n, err := o.Failed.Count(ctx, f.filter)
				return int(n.N), err
			}},
			looking{fmt.Sprintf("%s: groups %s", who, f.name), func(ctx context.Context) (int, error) {
				found, err := o.Failed.Groups(ctx, f.filter)
				return len(found), err
			}},
			looking{fmt.Sprintf("%s: delete --dry-run %s", who, f.name), func(ctx context.Context) (int, error) {
				preview, err := o.Failed.PreviewDelete(ctx, all, ops.ChangeOptions{})
				return int(preview.Messages.N), err
			}})
		if f.filter.Status == "" {
			looks = append(looks, looking{fmt.Sprintf("%s: replay --dry-run %s", who, f.name), func(ctx context.Context) (int, error) {
				preview, err := o.Failed.PreviewReplay(ctx, all, ops.ReplayOptions{})
				return int(preview.Messages.N), err
			}}, looking{fmt.Sprintf("%s: replay --dry-run --limit 1000 --order newest %s", who, f.name), func(ctx context.Context) (int, error) {
				last := all
				last.Order = ops.Newest
				preview, err := o.Failed.PreviewReplay(ctx, last, ops.ReplayOptions{ChangeOptions: ops.ChangeOptions{Limit: 1000}})
				return int(preview.Messages.N), err
			}})
		}
	}
	if who == "viewer" { // who sees no bodies
		return looks
	}
	return append(looks, looking{who + ": show N", func(ctx context.Context) (int, error) {
		_, err := o.Failed.Show(ctx, s.number)
		return 1, err
	}}, looking{who + ": show UUID", func(ctx context.Context) (int, error) {
		_, err := o.Failed.Show(ctx, s.id)
		return 1, err
	}})
}

// allFilterLooks are filterLooks as the owner, as an operator and as a viewer, whom row security concerns.
func (s *scene) allFilterLooks(ctx context.Context) (looks []looking, err error) {
	if err := s.pool.QueryRow(ctx, `SELECT seq::text, id::text FROM sqlq.error WHERE seq >= (SELECT max(seq) / 2 FROM sqlq.error) ORDER BY seq LIMIT 1`).Scan(&s.number, &s.id); err != nil {
		return nil, err
	}
	looks = s.filterLooks(s.ops, "owner")
	for _, who := range []string{"operator", "viewer"} {
		if _, err := s.pool.Exec(ctx, `CREATE ROLE opsload_`+who+` LOGIN; SELECT sqlq.grant_role('opsload_`+who+`', '`+who+`')`, pgx.QueryExecModeSimpleProtocol); err != nil {
			return nil, err
		}
		config := s.pool.Config()
		config.ConnConfig.User = "opsload_" + who
		pool, err := pgxpool.NewWithConfig(ctx, config)
		if err != nil {
			return nil, err
		}
		s.others = append(s.others, pool)
		looks = append(looks, s.filterLooks(ops.New(pool, schema), who)...)
	}
	return looks, nil
}
