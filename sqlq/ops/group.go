package ops

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// How long failed messages may be counted one by one. What takes longer is estimated, and what is sure to take longer, because
// the indexes lead to so many, at once.
const (
	groupWithin       = 500 * time.Millisecond
	listGroupsWithin  = 300 * time.Millisecond
	countFailedWithin = 250 * time.Millisecond
	countedAtMost     = 400_000
)

// listedGroups is how many groups are looked up one by one where their messages cannot all be counted.
const listedGroups = 500

// GroupBy is what the messages of a group share.
type GroupBy string

const (
	ByFault     GroupBy = "fault"      // FailedMessage.Group: the same error at the same place
	ByType      GroupBy = "type"       // the message type
	ByQueue     GroupBy = "queue"      // the queue that they came from
	ByHost      GroupBy = "host"       // the host of the last attempt
	ByErrorType GroupBy = "error-type" // the Go type of the innermost error, or the kind of failure
)

// GroupBys are all that failed messages can be grouped by.
var GroupBys = []GroupBy{ByFault, ByType, ByQueue, ByHost, ByErrorType}

// column is where that stands in the error table; "": nowhere.
func (by GroupBy) column() query.GroupColumn {
	switch by {
	case ByFault:
		return query.GroupByFingerprint
	case ByType:
		return query.GroupByType
	case ByQueue:
		return query.GroupByQueue
	case ByHost:
		return query.GroupByHost
	case ByErrorType:
		return query.GroupByErrorType
	}
	return ""
}

// Group is failed messages that have something in common: the fault, unless GroupsBy was asked for something else.
type Group struct {
	By        GroupBy   // what they share
	Group     string    // its value: with ByFault as in Filter.Group
	Count     Count     // of the messages that the filter chooses
	Archived  int64     // so many of them are archived
	Queues    []string  // their queues, in order
	Types     []string  // their types, in order
	FirstAt   time.Time // the first of them failed
	LastAt    time.Time // the last of them failed
	Number    int64     // one of them, a late one; with ByFault the others failed alike
	ErrorType string    // its
	Error     string    // its; the first thousand characters
}

// Status is that of its messages: failed, archived, or both.
func (g Group) Status() string {
	switch g.Archived {
	case 0:
		return string(StatusFailed)
	case g.Count.N:
		return string(StatusArchived)
	}
	return "both"
}

// MarshalJSON writes the group as sqlq error groups -o json does: unless its messages share the fault, with what they share.
func (g Group) MarshalJSON() ([]byte, error) {
	by := g.By
	if by == ByFault {
		by = ""
	}
	return encode(struct {
		By        GroupBy   `json:"by,omitempty"`
		Group     string    `json:"group"`
		Count     int64     `json:"count"`
		Estimated bool      `json:"estimated"`
		Archived  int64     `json:"archived"`
		Status    string    `json:"status"`
		Queues    []string  `json:"queues"`
		Types     []string  `json:"types"`
		FirstAt   time.Time `json:"first_failed_at"`
		LastAt    time.Time `json:"last_failed_at"`
		Number    int64     `json:"number"`
		ErrorType string    `json:"error_type"`
		Error     string    `json:"error"`
	}{by, g.Group, g.Count.N, g.Count.Estimated, g.Archived, g.Status(), g.Queues, g.Types, timeAsJSON(g.FirstAt), timeAsJSON(g.LastAt), g.Number,
		g.ErrorType, g.Error})
}

// Groups returns the failed messages that a filter chooses by group, the largest group first; with Order Newest that
// which failed last, with Oldest that which failed first. Limit is of groups. Where there are so many messages that
// counting them takes more than half a second, the counts are estimated from a sample of the table, but for small groups. Then with
// more than 500 groups, and with a filter that asks for more than status, group and times, a small group may be missing that
// has not failed lately. Errors are those of Failed.Each.
func (o Failed) Groups(ctx context.Context, f Filter) ([]Group, error) {
	return o.GroupsBy(ctx, ByFault, f)
}

// GroupsBy is Groups for messages that have something else in common than the fault. Where counts are estimated it has no index to
// find small groups by: those may be missing that have not failed lately.
func (o Failed) GroupsBy(ctx context.Context, by GroupBy, f Filter) ([]Group, error) {
	column := by.column()
	if column == "" {
		return nil, fmt.Errorf("failed messages cannot be grouped by %q: there are %s", by, quoted(GroupBys))
	}
	chosen, err := o.choose(ctx, f)
	if err != nil {
		return nil, err
	}
	var parts []query.FailedGroup
	exact := false
	expected, err := o.store.ExpectFailed(ctx, o.pool, chosen)
	if err == nil && expected <= countedAtMost {
		exact, err = o.within(ctx, groupWithin, func(tx pgx.Tx) (err error) {
			parts, err = o.store.GroupFailed(ctx, tx, column, chosen)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("group failed messages: %w", err)
	}
	var groups []Group
	if exact {
		groups = joinGroups(by, parts, false)
	} else if groups, err = o.estimateGroups(ctx, by, f, chosen); err != nil {
		return nil, fmt.Errorf("estimate groups of failed messages: %w", err)
	}
	if len(groups) == 0 {
		return nil, o.checkQueue(ctx, f.Queue)
	}
	sortGroups(groups, f.Order)
	groups = groups[:min(len(groups), f.limit())]
	return groups, o.fillGroups(ctx, groups)
}

// estimateGroups makes the groups from a sample, and looks them up one by one where that is quick: then none is missing, and
// the small ones are counted.
func (o Failed) estimateGroups(ctx context.Context, by GroupBy, f Filter, chosen query.Filter) ([]Group, error) {
	parts, err := o.store.EstimateGroups(ctx, o.pool, by.column(), chosen)
	if err != nil {
		return nil, err
	}
	groups := joinGroups(by, parts, true)
	if by != ByFault || chosen.Scans() || chosen.Queues != nil || f.Queue != "" || f.Type != "" || len(f.Names) > 0 {
		return groups, nil
	}
	var upTo int64
	listed, err := o.within(ctx, listGroupsWithin, func(tx pgx.Tx) (err error) {
		parts, upTo, err = o.store.ListGroups(ctx, tx, chosen, listedGroups)
		return err
	})
	if err != nil || !listed {
		return groups, err
	}
	estimated := map[string]Group{}
	for _, g := range groups {
		estimated[g.Group] = g
	}
	more := map[string]bool{} // there are more than were counted
	for _, p := range parts {
		more[p.Key] = more[p.Key] || p.N >= upTo
	}
	groups = joinGroups(by, parts, false)
	for i, g := range groups {
		e := estimated[g.Group]
		delete(estimated, g.Group)
		g.Queues, g.Types = union(g.Queues, e.Queues), union(g.Types, e.Types)
		if more[g.Group] {
			g.Count, g.Archived = Count{N: max(g.Count.N, e.Count.N), Estimated: true}, max(g.Archived, e.Archived)
		}
		groups[i] = g
	}
	if len(groups) < listedGroups { // these are all
		return groups, nil
	}
	for _, g := range estimated {
		groups = append(groups, g)
	}
	return groups, nil
}

// union returns the names that are in one of two lists, in order.
func union(a, b []string) []string {
	all := append(slices.Clone(a), b...)
	slices.Sort(all)
	return slices.Compact(all)
}

// joinGroups makes a group of its parts in each queue, type and status.
func joinGroups(by GroupBy, parts []query.FailedGroup, estimated bool) []Group {
	at := map[string]*Group{}
	for _, p := range parts {
		g := at[p.Key]
		if g == nil {
			g = &Group{By: by, Group: p.Key, Count: Count{Estimated: estimated}, FirstAt: p.FirstAt, LastAt: p.LastAt}
			at[p.Key] = g
		}
		g.Count.N += p.N
		if p.Status == string(StatusArchived) {
			g.Archived += p.N
		}
		g.Queues, g.Types = append(g.Queues, p.Queue), append(g.Types, p.Type)
		if p.FirstAt.Before(g.FirstAt) {
			g.FirstAt = p.FirstAt
		}
		if p.LastAt.After(g.LastAt) {
			g.LastAt = p.LastAt
		}
		g.Number = max(g.Number, p.Seq)
	}
	var groups []Group
	for _, g := range at {
		slices.Sort(g.Queues)
		slices.Sort(g.Types)
		g.Queues, g.Types = slices.Compact(g.Queues), slices.Compact(g.Types)
		groups = append(groups, *g)
	}
	return groups
}

func sortGroups(groups []Group, order Order) {
	slices.SortFunc(groups, func(a, b Group) int {
		by := 0
		switch order {
		case Newest:
			by = b.LastAt.Compare(a.LastAt)
		case Oldest:
			by = a.FirstAt.Compare(b.FirstAt)
		}
		return cmp.Or(by, cmp.Compare(b.Count.N, a.Count.N), b.LastAt.Compare(a.LastAt), cmp.Compare(a.Group, b.Group))
	})
}

// fillGroups says how one message of each group failed.
func (o Failed) fillGroups(ctx context.Context, groups []Group) error {
	of := map[int64]*Group{}
	var seqs []int64
	for i := range groups {
		of[groups[i].Number] = &groups[i]
		seqs = append(seqs, groups[i].Number)
	}
	texts, err := o.store.ReadFailedTexts(ctx, o.pool, seqs)
	if err != nil {
		return fmt.Errorf("read how the groups failed: %w", err)
	}
	for _, t := range texts {
		of[t.Seq].ErrorType, of[t.Seq].Error = t.ErrorType, t.Message
	}
	return nil
}

// Count counts the failed messages that a filter chooses, whatever its limit. The count is exact up to CountLimit,
// and where it takes longer than a quarter of a second estimated from a sample of the table. Errors are those of Failed.Each.
func (o Failed) Count(ctx context.Context, f Filter) (Count, error) {
	chosen, err := o.choose(ctx, f)
	if err != nil {
		return Count{}, err
	}
	var n int64
	exact, err := o.within(ctx, countFailedWithin, func(tx pgx.Tx) (err error) {
		n, err = o.store.CountChosen(ctx, tx, chosen, CountLimit+1)
		return err
	})
	if err != nil {
		return Count{}, fmt.Errorf("count failed messages: %w", err)
	}
	switch {
	case exact && n == 0:
		return Count{}, o.checkQueue(ctx, f.Queue)
	case exact && n <= CountLimit:
		return Count{N: n}, nil
	}
	estimate, err := o.store.EstimateChosen(ctx, o.pool, chosen)
	if err != nil {
		return Count{}, fmt.Errorf("estimate failed messages: %w", err)
	}
	return Count{N: max(n, estimate), Estimated: true}, nil
}
