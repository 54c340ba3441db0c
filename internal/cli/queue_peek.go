package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// queuePeekOptions are the arguments and flags of `sqlq queue peek`.
type queuePeekOptions struct {
	queue  string
	filter ops.Filter
	paging
}

func newQueuePeekCommand(e *env) *cobra.Command {
	var o queuePeekOptions
	c := &cobra.Command{
		Use:   "peek QUEUE",
		Short: "Show ready messages without taking them",
		Long: `Show the ready messages of a queue, or those that the flags choose, the oldest first, without taking them. Messages that
an instance holds at this moment are among them.

A queue has one index, by the order of arrival: to choose, every message is looked at, ten thousand in a statement, until
there are enough. That can be interrupted. With a choice that nothing fits the exit code is 5.`,
		Example:           "  sqlq queue peek sales\n  sqlq queue peek sales --body '$.amount > 1000' -n 1 -o json | jq '.[0].body'",
		Args:              exactly("QUEUE"),
		ValidArgsFunction: onlyFirst(completeQueues(e)),
		RunE: func(c *cobra.Command, args []string) error {
			o.queue = args[0]
			return runQueuePeek(c.Context(), e, &o)
		},
	}
	filterFlags(e, c, &o.filter, readyMessages)
	c.Flags().IntVarP(&o.filter.Limit, "limit", "n", 10, "show at most so many; 0: all")
	o.paging.flag(c)
	return c
}

func runQueuePeek(ctx context.Context, e *env, o *queuePeekOptions) error {
	if err := chosenBy(ctx, e, &o.filter, nil); err != nil {
		return err
	}
	db, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	p := e.progress()
	var messages []ops.Message
	var looked int64
	next, err := eachPage(o.filter.Limit, o.paging, func(limit int, opts ops.PageOptions) (ops.Page[ops.Message], error) {
		wanted := o.filter
		wanted.Limit, opts.Whole = limit, true
		return db.Ready.Page(ctx, o.queue, wanted, opts)
	}, func(page ops.Page[ops.Message]) error {
		messages, looked = append(messages, page.Items...), looked+page.Looked
		p.Show("looked at %d messages, found %d", looked, len(messages))
		return nil
	})
	p.End()
	if err != nil && len(messages) == 0 {
		return err
	}
	t := &term.Table{Columns: []term.Column{{Name: "seq", Right: true}, {Name: "sent"}, {Name: "type", Cut: true}, {Name: "attempt", Right: true, Spare: 1},
		{Name: "id", Spare: 2}, {Name: "body", Cut: true}}}
	for _, m := range messages {
		t.Add(fmt.Sprint(m.Seq), e.when(m.SentAt), m.Type, fmt.Sprint(m.Attempt), m.ID, begin(m.Body))
	}
	sayMore(e, len(messages), next)
	if err = errors.Join(printList(e, messages, t), err); err != nil || len(messages) > 0 {
		return err
	}
	if o.filter.ChoosesAll() {
		return noneFound(ctx, e, db, false, "", "no message is ready in queue "+o.queue)
	}
	return noneFound(ctx, e, db, true, o.filter.Type, "no such message is ready in queue "+o.queue)
}

// queueTailOptions are the arguments and flags of `sqlq queue tail`.
type queueTailOptions struct {
	queue   string
	filter  ops.Filter
	lasting time.Duration
}

func newQueueTailCommand(e *env) *cobra.Command {
	var o queueTailOptions
	c := &cobra.Command{
		Use:   "tail QUEUE",
		Short: "Follow the messages that arrive, without taking them",
		Long: `Show each message that arrives in a queue, or those that the flags choose, one a line, without taking it, until Ctrl-C,
--limit or --for ends it.

It looks every 200 ms: a message that is handled faster than that is not seen. Messages are shown in the order in which
they become visible; those of a transaction that takes longer than ten seconds to commit may be left out when others
overtake it.`,
		Example:           "  sqlq queue tail sales\n  sqlq queue tail sales --type sales.PlaceOrder --header tenant=north --for 1m -o jsonl",
		Args:              exactly("QUEUE"),
		ValidArgsFunction: onlyFirst(completeQueues(e)),
		RunE: func(c *cobra.Command, args []string) error {
			o.queue = args[0]
			return runQueueTail(c.Context(), e, &o)
		},
	}
	filterFlags(e, c, &o.filter, readyMessages)
	_ = c.Flags().MarkHidden("order")
	c.Flags().IntVarP(&o.filter.Limit, "limit", "n", 0, "end after so many; 0: go on")
	c.Flags().Var(duration{&o.lasting, false}, "for", "end after this time, such as 90s; 0: go on")
	return c
}

func runQueueTail(ctx context.Context, e *env, o *queueTailOptions) error {
	if err := chosenBy(ctx, e, &o.filter, nil); err != nil {
		return err
	}
	switch {
	case e.format == formatJSON:
		return usageErrorf("-o json is one document, and tail has no end: use -o jsonl")
	case o.filter.Order != "":
		return usageErrorf("--order: tail shows messages as they arrive")
	}
	db, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	following, stop := ctx, func() {}
	if o.lasting > 0 {
		following, stop = context.WithTimeout(following, o.lasting)
	}
	defer stop()
	if e.errTerminal {
		e.say("following queue %s; Ctrl-C ends it", o.queue)
	}
	err = db.Ready.Tail(following, o.queue, o.filter, func(m ops.Message) error {
		if e.format != formatTable {
			return printList(e, []ops.Message{m}, nil)
		}
		line := fmt.Sprintf("%s  %d  %s  %s  %s", m.SentAt.Local().Format("15:04:05.000"), m.Seq, m.Type, m.ID, begin(m.Body))
		if !e.outTerminal {
			line = fmt.Sprintf("%s  %d  %s  %s  %s", fullTime(m.SentAt), m.Seq, m.Type, m.ID, begin(m.Body))
		}
		line = term.OneLine(line)
		if e.width > 0 {
			line = term.Cut(line, e.width)
		}
		_, err := fmt.Fprintln(e.out, line)
		return err
	})
	if following.Err() != nil && errors.Is(err, following.Err()) && (ctx.Err() == nil || errors.Is(ctx.Err(), context.Canceled)) {
		return nil // its normal end
	}
	return err
}

// begin returns the beginning of a text of which a line shows no more.
func begin(text []byte) string {
	return strings.ToValidUTF8(string(text[:min(len(text), 1000)]), "\ufffd")
}
