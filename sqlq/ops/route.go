package ops

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// What Routes.Explain looks at: the last failed messages of the type, and the newest messages of each queue.
const (
	routeFailed  = 1000
	routeWaiting = 1000
)

// Route is what the database knows of where messages of a type go.
//
// An event goes to its subscribers, which are in the database. A command goes to the queue that the sending program routes it
// to (Config.Routes, To, or an endpoint of the same process): that is in the program, and the database can only tell where
// such messages have been, and which queue bears a name that looks like it.
type Route struct {
	Type        string         // the message type
	Subscribers []Subscription // a published event goes to these
	Waiting     []TypeSeen     // queues in which messages of the type wait, among the newest of each
	Failed      []TypeSeen     // queues whose messages of the type failed, among the last to do so
	Named       string         // the queue that is named like the beginning of the type, as sales is of sales.PlaceOrder; "": none
	Endpoints   map[string]int // running instances of each queue named above; one that is missing has none
}

// MarshalJSON writes the route as sqlq route explain -o json does, with the number of running instances of each of its Queues.
func (r Route) MarshalJSON() ([]byte, error) {
	instances := map[string]int{}
	for _, queue := range r.Queues() {
		instances[queue] = r.Endpoints[queue]
	}
	return encode(struct {
		Type        string         `json:"type"`
		Subscribers []Subscription `json:"subscribed"`
		Waiting     []TypeSeen     `json:"waiting"`
		Failed      []TypeSeen     `json:"failed"`
		Named       *string        `json:"named"`
		Instances   map[string]int `json:"instances"`
	}{r.Type, listed(r.Subscribers), listed(r.Waiting), listed(r.Failed), optionalText(r.Named), instances})
}

// TypeSeen is a queue in which messages of a type were seen.
type TypeSeen struct {
	Queue  string    // in which it was seen
	N      int       // how many, among those looked at
	LastAt time.Time // when the last was sent, or failed
}

// MarshalJSON writes it as sqlq route explain -o json does.
func (s TypeSeen) MarshalJSON() ([]byte, error) {
	return encode(struct {
		Queue  string    `json:"queue"`
		N      int       `json:"count"`
		LastAt time.Time `json:"last_at"`
	}{s.Queue, s.N, timeAsJSON(s.LastAt)})
}

// Queues returns all queues that the route speaks of, the surest first.
func (r Route) Queues() []string {
	var queues []string
	add := func(queue string) {
		if queue != "" && !slices.Contains(queues, queue) {
			queues = append(queues, queue)
		}
	}
	for _, s := range r.Subscribers {
		add(s.Queue)
	}
	for _, seen := range append(slices.Clone(r.Waiting), r.Failed...) {
		add(seen.Queue)
	}
	add(r.Named)
	return queues
}

// Explain returns what the database knows of where messages of a type go. It reads a bounded number of rows of each
// queue.
func (o Routes) Explain(ctx context.Context, messageType string) (Route, error) {
	r, err := o.explainRoute(ctx, messageType)
	if err != nil {
		return Route{}, fmt.Errorf("explain where %q goes: %w", messageType, err)
	}
	return r, nil
}

func (o Routes) explainRoute(ctx context.Context, messageType string) (r Route, err error) {
	r = Route{Type: messageType, Endpoints: map[string]int{}}
	if r.Subscribers, err = o.List(ctx, messageType, ""); err != nil {
		return r, err
	}
	queues, err := o.store.Queues.Names(ctx, o.pool)
	if err != nil {
		return r, err
	}
	failed, err := o.store.TypeFailed(ctx, o.pool, messageType, routeFailed)
	if err != nil {
		return r, err
	}
	r.Failed = typesSeen(failed)
	var waiting []query.TypeSeen
	done, err := o.within(ctx, countAllWithin, func(tx pgx.Tx) (err error) {
		waiting, err = o.store.TypeWaiting(ctx, tx, messageType, queues, routeWaiting)
		return err
	})
	if err != nil && sqlState(err) != undefinedTable { // a queue that was dropped just now
		return r, err
	}
	if done {
		r.Waiting = typesSeen(waiting)
	}
	r.Named = namedLike(messageType, queues)
	endpoints, err := o.store.Endpoints(ctx, o.pool)
	if err != nil {
		return r, err
	}
	named := r.Queues()
	for _, e := range endpoints {
		if slices.Contains(named, e.Name) {
			r.Endpoints[e.Name] = e.Instances
		}
	}
	return r, nil
}

// namedLike returns the queue with the longest name that the type begins with, up to one of its separators, whatever the
// case.
func namedLike(messageType string, queues []string) string {
	like := ""
	for _, queue := range queues {
		rest, begins := strings.CutPrefix(strings.ToLower(messageType), strings.ToLower(queue))
		if begins && (rest == "" || strings.ContainsRune("._/:-", rune(rest[0]))) && len(queue) > len(like) {
			like = queue
		}
	}
	return like
}

func typesSeen(found []query.TypeSeen) []TypeSeen {
	seen := make([]TypeSeen, len(found))
	for i, s := range found {
		seen[i] = TypeSeen(s)
	}
	return seen
}
