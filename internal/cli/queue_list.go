package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

func newQueueListCommand(e *env) *cobra.Command {
	return watchable(e, &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List queues with what waits in them, and how fast it comes and goes",
		Long: fmt.Sprintf(`List queues: messages that are ready (the backlog), delayed, leased by a running instance, and failed; how long ago the
oldest ready message was sent; how many messages a second come in and go out; running instances; and whether the queue is
paused.

Counts are exact up to %d, less in a database with hundreds of long queues. Above that, and where dead rows make counting
slow, they are estimates from a sample and marked ~. So the list takes some milliseconds, whatever the backlog, and
about half a millisecond for each queue: a second or so with 2,500 of them.

IN/S is what arrives, new or come back from a delay, a lease or a replay; - says that no instance takes readings. OUT/S is
what the instances complete. These cost the database two small statements every ten seconds, whatever the traffic: the
leading instance reads how far the queues' sequences have come, and each heartbeat brings its instance's count.

In JSON: queue, ready, delayed, leased, failed, estimated (which of these are, if any), oldest_sent_at and
oldest_age_seconds (null: none is ready), in_per_second (null: not known), out_per_second, instances, paused_at (null: it is
not) and paused_by.`, ops.CountLimit),
		Example:     "  sqlq queue ls --watch\n  sqlq queue ls -o jsonl | jq 'select(.failed > 0)'",
		Args:        noMoreThan(0),
		Annotations: map[string]string{needs: "viewer"},
		RunE: func(c *cobra.Command, _ []string) error {
			return runQueueList(c.Context(), e)
		},
	})
}

func runQueueList(ctx context.Context, e *env) error {
	db, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	views, t, err := listQueues(ctx, e, db)
	if err != nil {
		return err
	}
	if len(views) == 0 {
		e.say("no queues in schema %q; make one with: sqlq queue create NAME", e.schema)
	}
	return printList(e, views, t)
}

// listQueues makes one list of the queues, as data and as a table.
func listQueues(ctx context.Context, e *env, db *database) ([]ops.Queue, *term.Table, error) {
	queues, err := db.Queues.List(ctx)
	if err != nil {
		return nil, nil, err
	}
	t := &term.Table{Columns: []term.Column{{Name: "queue", Cut: true}, {Name: "ready", Right: true}, {Name: "delayed", Right: true, Spare: 3},
		{Name: "leased", Right: true, Spare: 4}, {Name: "failed", Right: true}, {Name: "oldest"}, {Name: "in/s", Right: true, Spare: 1}, {Name: "out/s", Right: true, Spare: 2},
		{Name: "inst", Right: true, Spare: 5}, {Name: "paused"}}}
	for _, q := range queues {
		paused := "-"
		if q.PausedAt != nil {
			paused = e.when(*q.PausedAt)
		}
		t.Add(q.Name, count(q.Ready), count(q.Delayed), count(q.Leased), count(q.Failed), oldestText(e, q), perSecond(q.In), perSecond(&q.Out),
			fmt.Sprint(q.Instances), paused)
	}
	return queues, t, nil
}

// queueShowOptions are the arguments of `sqlq queue show`.
type queueShowOptions struct {
	names []string
}

func newQueueShowCommand(e *env) *cobra.Command {
	var o queueShowOptions
	return &cobra.Command{
		Use:   "show QUEUE...",
		Short: "Show all that is known of queues",
		Long: `Show all that is known of queues: what ls lists, and since when there is such a queue, who paused it, which event types it
is subscribed to, its running instances, and of its table: the size with index and large bodies, the rows that vacuum has
not removed yet, and up to which number (low) it has no message, where receivers begin to look.`,
		Example:           "  sqlq queue show sales\n  sqlq queue show sales billing -o yaml",
		Args:              atLeastOne("QUEUE"),
		ValidArgsFunction: several(completeQueues(e)),
		Annotations:       map[string]string{needs: "viewer"},
		RunE: func(c *cobra.Command, names []string) error {
			o.names = names
			return runQueueShow(c.Context(), e, &o)
		},
	}
}

func runQueueShow(ctx context.Context, e *env, o *queueShowOptions) error {
	db, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	var views []ops.QueueDetail
	for i, name := range o.names {
		q, err := db.Queues.Show(ctx, name)
		if err != nil {
			return err
		}
		if len(o.names) > 1 && e.format != formatTable {
			views = append(views, q)
			continue
		}
		if i > 0 {
			fmt.Fprintln(e.out)
		}
		if err := e.printOne(q, func(w io.Writer) { writeQueue(e, w, q) }); err != nil {
			return err
		}
	}
	if views == nil {
		return nil
	}
	return printList(e, views, nil)
}

func writeQueue(e *env, w io.Writer, q ops.QueueDetail) {
	field(w, "queue", q.Name)
	field(w, "ready", count(q.Ready))
	field(w, "delayed", count(q.Delayed))
	field(w, "leased", count(q.Leased))
	field(w, "failed", count(q.Failed))
	field(w, "oldest", oldestText(e, q.Queue))
	field(w, "in/s", perSecond(q.In))
	field(w, "out/s", perSecond(&q.Out))
	field(w, "instances", fmt.Sprint(q.Instances))
	if q.PausedAt != nil {
		field(w, "paused", e.whenInFull(*q.PausedAt)+" by "+q.PausedBy)
	}
	field(w, "created", e.whenInFull(q.CreatedAt))
	field(w, "subscribed", strings.Join(q.Subscribed, ", "))
	field(w, "table size", inBytes(q.Size))
	field(w, "dead rows", fmt.Sprint(q.Dead))
	field(w, "low", fmt.Sprint(q.Low))
	var text strings.Builder
	t := &term.Table{Columns: []term.Column{{Name: "number", Right: true}, {Name: "host", Cut: true}, {Name: "pid", Right: true, Spare: 1}, {Name: "version", Cut: true, Spare: 2},
		{Name: "in hand", Right: true}, {Name: "out/s", Right: true}, {Name: "started", Spare: 3}, {Name: "heartbeat"}}}
	for _, i := range q.Running {
		t.Add(fmt.Sprint(i.Number), i.Host, fmt.Sprint(i.PID), i.Version, fmt.Sprintf("%d/%d", i.InHand, i.Concurrency), perSecond(&i.Rate),
			e.when(i.StartedAt), e.when(i.HeartbeatAt))
	}
	_ = t.Print(&text, max(0, e.width-2))
	block(w, "running", text.String())
}

// perSecond writes messages a second; nil is not known.
func perSecond(rate *float64) string {
	switch {
	case rate == nil:
		return "-"
	case *rate == 0:
		return "0"
	case *rate < 10:
		return fmt.Sprintf("%.1f", *rate)
	default:
		return fmt.Sprintf("%.0f", *rate)
	}
}

// inBytes writes a number of bytes.
func inBytes(bytes int64) string {
	n, unit := float64(bytes), "B"
	for _, larger := range []string{"kB", "MB", "GB", "TB"} {
		if n < 1024 {
			break
		}
		n, unit = n/1024, larger
	}
	if unit == "B" || n >= 100 {
		return fmt.Sprintf("%.0f %s", n, unit)
	}
	return fmt.Sprintf("%.1f %s", n, unit)
}

// count writes a count; an estimate is rounded and marked.
func count(c ops.Count) string {
	switch {
	case !c.Estimated:
		return fmt.Sprint(c.N)
	case c.N >= 10_000_000:
		return fmt.Sprintf("~%dM", c.N/1_000_000)
	case c.N >= 1_000_000:
		return fmt.Sprintf("~%.1fM", float64(c.N)/1_000_000)
	case c.N >= 10_000:
		return fmt.Sprintf("~%dk", c.N/1000)
	default:
		return fmt.Sprintf("~%d", c.N)
	}
}

func oldestText(e *env, q ops.Queue) string {
	switch {
	case q.OldestAge == nil:
		return "-"
	case e.outTerminal:
		return age(max(0, *q.OldestAge)) + " ago"
	default:
		return fullTime(*q.OldestAt)
	}
}
