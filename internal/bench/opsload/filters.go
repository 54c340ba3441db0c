package main

import (
	"context"
	"fmt"
	"time"

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
		{"--status archived", ops.Filter{Status: ops.StatusArchived}},
		{"--queue sales", ops.Filter{Queue: "sales"}},
		{"--queue rare", ops.Filter{Queue: "rare"}},
		{"--queue burst", ops.Filter{Queue: "burst"}},
		{"--queue burst --status any", ops.Filter{Queue: "burst", Status: ops.StatusAny}},
		{"--type sales.Type0", ops.Filter{Type: "sales.Type0"}},
		{"--type rare.Type2", ops.Filter{Type: "rare.Type2"}},
		{"--type burst.Type", ops.Filter{Type: "burst.Type"}},
		{"--type sales.Type0 --status archived", ops.Filter{Type: "sales.Type0", Status: ops.StatusArchived}},
		{"--group group-0", ops.Filter{Group: "group-0"}},
		{"--group group-45", ops.Filter{Group: "group-45"}},
		{"--group group-46", ops.Filter{Group: "group-46"}},
		{"--group group-50", ops.Filter{Group: "group-50"}},
		{"--id N", ops.Filter{Names: []string{s.number}}},
		{"--id UUID", ops.Filter{Names: []string{s.id}}},
		{"--since 1h", ops.Filter{Since: ops.Ago(time.Hour)}},
		{"--since 1d", ops.Filter{Since: ops.Ago(24 * time.Hour)}},
		{"--since 20d", ops.Filter{Since: ops.Ago(20 * 24 * time.Hour)}},
		{"--until 20d", ops.Filter{Until: ops.Ago(20 * 24 * time.Hour)}},
		{"--since 15d --until 14d", ops.Filter{Since: ops.Ago(15 * 24 * time.Hour), Until: ops.Ago(14 * 24 * time.Hour)}},
		{"--attempts 3", rare},
		{"--attempts 3 --group group-0", byGroup(rare, "group-0")},
		{"--queue sales --type sales.Type0", ops.Filter{Queue: "sales", Type: "sales.Type0"}},
		{"--queue sales --group group-0", ops.Filter{Queue: "sales", Group: "group-0"}},
		{"--queue sales --group group-40", ops.Filter{Queue: "sales", Group: "group-40"}},
		{"--queue sales --type burst.Type", ops.Filter{Queue: "sales", Type: "burst.Type"}},
		{"--queue sales --since 1d", ops.Filter{Queue: "sales", Since: ops.Ago(24 * time.Hour)}},
		{"--queue burst --since 15d --until 14d", ops.Filter{Queue: "burst", Since: ops.Ago(15 * 24 * time.Hour), Until: ops.Ago(14 * 24 * time.Hour)}},
		{"--queue rare --since 20d", ops.Filter{Queue: "rare", Since: ops.Ago(20 * 24 * time.Hour)}},
		{"--type sales.Type0 --since 1h --error /timeout/", ops.Filter{Type: "sales.Type0", Since: ops.Ago(time.Hour), Error: "/timeout/"}},
		{"--group group-0 --since 1d", ops.Filter{Group: "group-0", Since: ops.Ago(24 * time.Hour)}},
		{"--group group-40 --since 1d", ops.Filter{Group: "group-40", Since: ops.Ago(24 * time.Hour)}},
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
				found, err := o.ListFailed(ctx, page)
				return len(found), err
			}
		}
		all := f.filter
		all.All = all.ChoosesAll()
		looks = append(looks,
			looking{fmt.Sprintf("%s: ls %s", who, f.name), list(ops.Newest)},
			looking{fmt.Sprintf("%s: ls %s --order oldest", who, f.name), list(ops.Oldest)},
			looking{fmt.Sprintf("%s: count %s", who, f.name), func(ctx context.Context) (int, error) {
				n, err := o.CountFailed(ctx, f.filter)
				return int(n.N), err
			}},
			looking{fmt.Sprintf("%s: groups %s", who, f.name), func(ctx context.Context) (int, error) {
				found, err := o.GroupFailed(ctx, f.filter)
				return len(found), err
			}},
			looking{fmt.Sprintf("%s: delete --dry-run %s", who, f.name), func(ctx context.Context) (int, error) {
				preview, err := o.PreviewDelete(ctx, all)
				return int(preview.Messages.N), err
			}})
		if f.filter.Status == "" {
			looks = append(looks, looking{fmt.Sprintf("%s: replay --dry-run %s", who, f.name), func(ctx context.Context) (int, error) {
				preview, err := o.PreviewReplay(ctx, all, ops.ReplayOptions{})
				return int(preview.Messages.N), err
			}}, looking{fmt.Sprintf("%s: replay --dry-run --limit 1000 --order newest %s", who, f.name), func(ctx context.Context) (int, error) {
				last := all
				last.Order = ops.Newest
				preview, err := o.PreviewReplay(ctx, last, ops.ReplayOptions{Limit: 1000})
				return int(preview.Messages.N), err
			}})
		}
	}
	return append(looks, looking{who + ": show N", func(ctx context.Context) (int, error) {
		_, err := o.ShowFailed(ctx, s.number)
		return 1, err
	}}, looking{who + ": show UUID", func(ctx context.Context) (int, error) {
		_, err := o.ShowFailed(ctx, s.id)
		return 1, err
	}})
}
