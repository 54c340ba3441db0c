package cli

import (
	"context"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// topOptions are the flags of `sqlq top`.
type topOptions struct {
	every interval // between two readings
}

func newTopCommand(e *env) *cobra.Command {
	o := topOptions{every: interval(2 * time.Second)}
	c := &cobra.Command{
		Use:   "top",
		Short: "Show queues, failures and instances on a full screen, live",
		Long: `Show queues with what waits in them and how fast messages come and go, failures by their group, and running instances,
on a full screen that is read anew every two seconds. Enter leads from a queue to its messages, from a group to its
failed messages, and from a message to all that is known of it. Nothing can be changed there. The keys stand in the
last line; ? explains them, q ends.

Rates are those between two readings. What goes out is what arrived less what the backlog grew by, and unknown where the
backlog is an estimate.`,
		Example: "  sqlq top\n  sqlq top --every 500ms",
		Args:    noMoreThan(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return runTop(c.Context(), e, &o)
		},
	}
	c.Flags().Var(&o.every, "every", "read anew after this time")
	c.Flag("every").DefValue = "2s"
	return c
}

func runTop(ctx context.Context, e *env, o *topOptions) error {
	if !e.inTerminal || !e.outTerminal || term.Dumb() || e.format != formatTable {
		return usageErrorf("top draws on a terminal's screen, and this is none; elsewhere: sqlq queue ls --watch, also with -o jsonl")
	}
	db, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	m := newTopModel(ctx, topSource{
		sample: db.snapshot,
		peek: func(ctx context.Context, queue string, n int) ([]ops.Message, error) {
			return db.Ready.List(ctx, queue, ops.Filter{Limit: n}, ops.Looking{})
		},
		failed: db.Failed.List,
		show:   db.Failed.Show,
	}, time.Duration(o.every))
	m.where, m.paint, m.text = db.where, e.paint, func(failed ops.FailedMessage) string { return failedText(e, failed) }
	return runScreen(ctx, e, m)
}

// runScreen gives the terminal to the screen, and has it as it was at the end, whatever ends it.
func runScreen(ctx context.Context, e *env, m topModel) error {
	profile := colorprofile.ANSI
	if !e.palette().Colored() {
		profile = colorprofile.ASCII
	}
	program := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(e.in), tea.WithOutput(e.stdout()),
		tea.WithColorProfile(profile), tea.WithoutSignalHandler())
	_, err := program.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// snapshot is what the screen shows of the database, read at one moment.
type snapshot struct {
	at        time.Time
	queues    []topQueue
	groups    []topGroup
	instances []topInstance
}

type topQueue struct {
	ops.Queue
	arrived *int64   // ever; nil: unknown
	in, out *float64 // a second, as the database keeps them; nil: it does not
	paused  bool
}

// topGroup is the failed messages of one fault.
type topGroup struct {
	group   string
	queue   string // of the newest
	message string // likewise
	count   ops.Count
	last    time.Time
}

type topInstance struct {
	endpoint, host, version string
	state                   string        // running or late
	seen                    time.Duration // since its last heartbeat
	concurrency, inHand     int
	rate                    float64 // messages a second
	slow                    int     // handlers that run too long
}

// snapshot reads what the screen shows.
func (d *database) snapshot(ctx context.Context) (snapshot, error) {
	s := snapshot{at: time.Now()}
	queues, err := d.Queues.List(ctx)
	if err != nil {
		return s, err
	}
	arrived, err := d.Queues.Arrived(ctx)
	if err != nil {
		return s, err
	}
	for _, q := range queues {
		shown := topQueue{Queue: q, in: q.In, out: &q.Out, paused: q.PausedAt != nil}
		if n, known := arrived[q.Name]; known {
			shown.arrived = &n
		}
		s.queues = append(s.queues, shown)
	}
	groups, err := d.Failed.Groups(ctx, ops.Filter{})
	if err != nil {
		return s, err
	}
	for _, g := range groups {
		s.groups = append(s.groups, topGroup{group: g.Group, queue: strings.Join(g.Queues, ", "), message: g.Error, count: g.Count, last: g.LastAt})
	}
	instances, err := d.Instances.List(ctx, ops.InstanceFilter{})
	if err != nil {
		return s, err
	}
	for _, i := range instances {
		s.instances = append(s.instances, topInstance{endpoint: i.Endpoint, host: i.Host, version: i.Version, state: string(i.State), seen: s.at.Sub(i.LastSeen),
			concurrency: i.Concurrency, inHand: i.InHand, rate: i.Rate, slow: i.Slow})
	}
	return s, nil
}
