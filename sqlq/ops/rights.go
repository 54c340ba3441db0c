package ops

import (
	"context"
	"fmt"
	"slices"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// Rights are what the role of this connection may do, by the privileges that it has: for a page that does not offer what would be
// refused. The database decides all the same.
type Rights struct {
	Role   string   `json:"role"`   // of the database
	Look   bool     `json:"look"`   // at messages and failures: of Queues
	Bodies bool     `json:"bodies"` // and at headers and bodies
	Change bool     `json:"change"` // replay, archive, edit, delete, purge, move, pause: of Changes
	Send   bool     `json:"send"`   // send and publish, to queues that it may send to
	Queues []string `json:"queues"` // whose ready messages it may look at, by name
	// Changes are those of Queues whose messages it may take away.
	Changes []string `json:"changes"`
}

// wantedRights are the privileges that Rights asks for.
var wantedRights = []query.Privilege{
	{Name: "SELECT", On: "column", Object: "error", Column: "seq"},
	{Name: "SELECT", On: "column", Object: "error", Column: "body"},
	{Name: "DELETE", On: "table", Object: "error"},
	{Name: "EXECUTE", On: "function", Object: "send"},
	{Name: "SELECT", On: "column", Object: "q_*", Column: "seq"},
	{Name: "DELETE", On: "table", Object: "q_*"},
}

// Rights returns what the role of this connection may do.
func (o Roles) Rights(ctx context.Context) (Rights, error) {
	server, err := o.store.Server(ctx, o.pool)
	if err != nil {
		return Rights{}, fmt.Errorf("ask the server what it is: %w", err)
	}
	lacks, err := o.store.Lacks(ctx, o.pool, wantedRights, nil)
	if err != nil {
		return Rights{}, fmt.Errorf("ask what role %q may do: %w", server.Role, err)
	}
	lacking := func(n int) (whole bool, queues []string) {
		for _, l := range lacks {
			if l.Privilege == wantedRights[n] {
				return true, l.Queues
			}
		}
		return false, nil
	}
	r := Rights{Role: server.Role, Queues: []string{}, Changes: []string{}}
	for n, may := range []*bool{&r.Look, &r.Bodies, &r.Change, &r.Send} {
		lacks, _ := lacking(n)
		*may = !lacks
	}
	if !r.Look {
		return r, nil
	}
	names, err := Queues(o).Names(ctx)
	if err != nil {
		return r, err
	}
	_, unseen := lacking(4)
	_, unchanged := lacking(5)
	for _, name := range names {
		if slices.Contains(unseen, name) {
			continue
		}
		r.Queues = append(r.Queues, name)
		if r.Change && !slices.Contains(unchanged, name) {
			r.Changes = append(r.Changes, name)
		}
	}
	return r, nil
}
