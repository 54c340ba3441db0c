package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/sqlq/ops"
)

func (a *app) queueCommand() *cobra.Command {
	return noun("queue", "Look at queues; make, empty and drop them",
		a.queueCreateCommand(), a.queueListCommand(), a.queueShowCommand(), a.queuePeekCommand(), a.queuePurgeCommand(), a.queueDropCommand())
}

func (a *app) queueCreateCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "create QUEUE...",
		Short:   "Make queues; one that is there already stays as it is",
		Example: "  sqlq queue create sales billing",
		Args:    atLeastOne("QUEUE"),
		RunE: func(c *cobra.Command, names []string) error {
			db, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			defer db.Close()
			type view struct {
				Queue   string `json:"queue"`
				Created bool   `json:"created"`
			}
			var views []view
			for _, name := range names {
				made, err := db.CreateQueue(c.Context(), name)
				if err != nil {
					return errors.Join(err, printList(a, views, nil))
				}
				views = append(views, view{name, made})
				if made {
					a.say("made queue %s", name)
				} else {
					a.say("queue %s was there already", name)
				}
			}
			return printList(a, views, nil)
		},
	}
}

func (a *app) queueListCommand() *cobra.Command {
	return a.watchable(&cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List queues with what waits in them",
		Long: fmt.Sprintf(`List queues with what waits in them: messages that are ready, delayed, leased by a running instance, and failed; and how
long ago the oldest ready message was sent.

Counts are exact up to %d. Above that, and where dead rows make counting slow, they are estimates and marked ~.`, ops.CountLimit),
		Example: "  sqlq queue ls --watch\n  sqlq queue ls -o jsonl | jq 'select(.failed > 0)'",
		Args:    noMoreThan(0),
		RunE: func(c *cobra.Command, _ []string) error {
			db, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			defer db.Close()
			queues, err := db.ListQueues(c.Context())
			if err != nil {
				return err
			}
			if len(queues) == 0 {
				a.say("no queues in schema %q; make one with: sqlq queue create NAME", a.schema)
			}
			t := &table{columns: []column{{name: "queue"}, {name: "ready", right: true}, {name: "delayed", right: true},
				{name: "leased", right: true}, {name: "failed", right: true, style: some(red)}, {name: "oldest"}}}
			var views []queueView
			for _, q := range queues {
				views = append(views, viewQueue(q))
				t.add(q.Name, count(q.Ready), count(q.Delayed), count(q.Leased), count(q.Failed), a.oldest(q))
			}
			return printList(a, views, t)
		},
	})
}

func (a *app) queueShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "show QUEUE",
		Short:   "Show all that is known of a queue",
		Example: "  sqlq queue show sales",
		Args:    exactly("QUEUE"),
		RunE: func(c *cobra.Command, args []string) error {
			db, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			defer db.Close()
			q, err := db.ShowQueue(c.Context(), args[0])
			if err != nil {
				return err
			}
			view := struct {
				queueView
				CreatedAt  time.Time `json:"created_at"`
				Subscribed []string  `json:"subscribed"`
				Instances  int       `json:"instances"`
			}{viewQueue(q.Queue), q.CreatedAt.UTC(), q.Subscribed, q.Instances}
			return a.printOne(view, func(w io.Writer) {
				field(w, "queue", q.Name)
				field(w, "ready", count(q.Ready))
				field(w, "delayed", count(q.Delayed))
				field(w, "leased", count(q.Leased))
				field(w, "failed", count(q.Failed))
				field(w, "oldest", a.oldest(q.Queue))
				field(w, "instances", fmt.Sprint(q.Instances))
				field(w, "created", a.whenInFull(q.CreatedAt))
				field(w, "subscribed", strings.Join(q.Subscribed, ", "))
			})
		},
	}
}

func (a *app) queuePeekCommand() *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use:     "peek QUEUE",
		Short:   "Show the oldest ready messages without taking them",
		Example: "  sqlq queue peek sales\n  sqlq queue peek sales -n 1 -o json | jq '.[0].body'",
		Args:    exactly("QUEUE"),
		RunE: func(c *cobra.Command, args []string) error {
			if limit < 1 {
				return usageErrorf("--limit %d: it takes a number from 1", limit)
			}
			db, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			defer db.Close()
			messages, err := db.Peek(c.Context(), args[0], limit)
			if err != nil {
				return err
			}
			if len(messages) == 0 {
				a.say("no message is ready in queue %s", args[0])
			}
			t := &table{columns: []column{{name: "seq", right: true}, {name: "sent"}, {name: "type"}, {name: "attempt", right: true},
				{name: "id"}, {name: "body", cut: true}}}
			var views []messageView
			for _, m := range messages {
				views = append(views, messageView{m.Seq, m.ID, m.Type, m.SentAt.UTC(), utc(m.ExpiresAt), m.Attempt, headersOf(m.Headers), bodyOf(m.Body)})
				t.add(fmt.Sprint(m.Seq), a.when(m.SentAt), m.Type, fmt.Sprint(m.Attempt), m.ID, string(m.Body[:min(len(m.Body), 1000)]))
			}
			return printList(a, views, t)
		},
	}
	c.Flags().IntVarP(&limit, "limit", "n", 10, "show at most so many")
	return c
}

func (a *app) queuePurgeCommand() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "purge QUEUE",
		Short: "Remove the messages that wait in a queue, for good",
		Long: `Remove the messages of a queue that are ready or delayed, for good. Messages that are being handled stay, so do failed
ones. It asks first; off a terminal it needs --yes.`,
		Example: "  sqlq queue purge sales",
		Args:    exactly("QUEUE"),
		RunE: func(c *cobra.Command, args []string) error {
			db, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			defer db.Close()
			q, err := db.ShowQueue(c.Context(), args[0])
			if err != nil {
				return err
			}
			if err := a.confirmByName(c.Context(), change{yes: yes}, fmt.Sprintf("remove %s ready and %s delayed messages of queue %q in schema %q of %s",
				count(q.Ready), count(q.Delayed), q.Name, a.schema, db.where), q.Name); err != nil {
				return err
			}
			purged, err := db.Purge(c.Context(), q.Name)
			if err != nil && purged == (ops.Purged{}) {
				return err
			}
			outcome := struct {
				Queue   string `json:"queue"`
				Ready   int64  `json:"ready_removed"`
				Delayed int64  `json:"delayed_removed"`
			}{q.Name, purged.Ready, purged.Delayed}
			return errors.Join(a.done(outcome, "removed %d ready and %d delayed messages of queue %s in %s", purged.Ready, purged.Delayed, q.Name, db.where), err)
		},
	}
	yesFlag(c, &yes)
	return c
}

func (a *app) queueDropCommand() *cobra.Command {
	var yes, force bool
	c := &cobra.Command{
		Use:   "drop QUEUE",
		Short: "Remove a queue and its subscriptions",
		Long: `Remove a queue and its subscriptions. A queue that holds messages, ready, delayed or leased, is only removed with
--force, and they with it. Failed messages stay in the error table. It asks first; off a terminal it needs --yes.`,
		Example: "  sqlq queue drop sales",
		Args:    exactly("QUEUE"),
		RunE: func(c *cobra.Command, args []string) error {
			db, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			defer db.Close()
			q, err := db.ShowQueue(c.Context(), args[0])
			if err != nil {
				return err
			}
			if err := a.confirmByName(c.Context(), change{yes: yes}, fmt.Sprintf("drop queue %q (%s ready, %s delayed, %s leased, %s) in schema %q of %s",
				q.Name, count(q.Ready), count(q.Delayed), count(q.Leased), plural(int64(len(q.Subscribed)), "subscription"), a.schema, db.where), q.Name); err != nil {
				return err
			}
			removed, err := db.DropQueue(c.Context(), q.Name, force)
			if err != nil {
				return err
			}
			outcome := struct {
				Queue   string `json:"queue"`
				Removed int64  `json:"messages_removed"`
			}{q.Name, removed}
			return a.done(outcome, "dropped queue %s and %s in %s", q.Name, plural(removed, "message"), db.where)
		},
	}
	yesFlag(c, &yes)
	c.Flags().BoolVar(&force, "force", false, "drop it even if it holds messages, which are lost")
	return c
}

func yesFlag(c *cobra.Command, yes *bool) {
	c.Flags().BoolVar(yes, "yes", false, "do not ask")
}

func atLeastOne(name string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return exactly(name)(c, args)
		}
		return nil
	}
}

// queueView is a queue in JSON.
type queueView struct {
	Queue     string     `json:"queue"`
	Ready     int64      `json:"ready"`
	Delayed   int64      `json:"delayed"`
	Leased    int64      `json:"leased"`
	Failed    int64      `json:"failed"`
	Estimated []string   `json:"estimated,omitempty"` // which of these are estimates
	OldestAt  *time.Time `json:"oldest_sent_at"`
	OldestAge *float64   `json:"oldest_age_seconds"`
}

func viewQueue(q ops.Queue) queueView {
	v := queueView{Queue: q.Name, Ready: q.Ready.N, Delayed: q.Delayed.N, Leased: q.Leased.N, Failed: q.Failed.N, OldestAt: utc(q.OldestAt)}
	for i, c := range []ops.Count{q.Ready, q.Delayed, q.Leased, q.Failed} {
		if c.Estimated {
			v.Estimated = append(v.Estimated, []string{"ready", "delayed", "leased", "failed"}[i])
		}
	}
	if q.OldestAge != nil {
		seconds := q.OldestAge.Seconds()
		v.OldestAge = &seconds
	}
	return v
}

// messageView is a ready message in JSON.
type messageView struct {
	Seq       int64      `json:"seq"`
	ID        string     `json:"id"`
	Type      string     `json:"type"`
	SentAt    time.Time  `json:"sent_at"`
	ExpiresAt *time.Time `json:"expires_at"`
	Attempt   int        `json:"attempt"`
	Headers   any        `json:"headers"`
	body
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

func (a *app) oldest(q ops.Queue) string {
	switch {
	case q.OldestAge == nil:
		return "-"
	case a.outTerminal:
		return age(max(0, *q.OldestAge)) + " ago"
	default:
		return fullTime(*q.OldestAt)
	}
}
