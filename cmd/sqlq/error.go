package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/sqlq/ops"
)

func (a *app) errorCommand() *cobra.Command {
	return noun("error", "Look at failed messages; replay and archive them",
		a.errorListCommand(), a.errorShowCommand(), a.errorReplayCommand(), a.errorArchiveCommand())
}

func (a *app) errorListCommand() *cobra.Command {
	var f ops.Filter
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List failed messages, the newest first",
		Example: "  sqlq error ls --queue billing\n  sqlq error ls --limit 0 -o jsonl | jq -r .group | sort | uniq -c",
		Args:    noMoreThan(0),
		RunE: func(c *cobra.Command, _ []string) error {
			if f.Limit < 0 {
				return usageErrorf("--limit %d: it takes a number from 1, or 0 for all", f.Limit)
			}
			db, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			defer db.Close()
			wanted := f
			if f.Limit > 0 {
				wanted.Limit++ // to see whether there are more
			}
			failed, err := db.ListFailed(c.Context(), wanted)
			if err != nil {
				return err
			}
			switch {
			case len(failed) == 0:
				a.say("no such messages in the error table")
			case f.Limit > 0 && len(failed) > f.Limit:
				failed = failed[:f.Limit]
				a.say("there are more than these %d; --limit says how many to list", f.Limit)
			}
			t := &table{columns: []column{{name: "number", right: true}, {name: "when"}, {name: "queue"}, {name: "type"},
				{name: "attempts", right: true}, {name: "error", cut: true}, {name: "group"}}}
			var views []failedView
			for _, m := range failed {
				views = append(views, viewFailed(m))
				t.add(fmt.Sprint(m.Number), a.when(m.FailedAt), m.Queue, m.Type, fmt.Sprint(m.Attempts), m.Error, m.Group)
			}
			return printList(a, views, t)
		},
	}
	a.filterFlags(c, &f, failedMessages)
	c.Flags().IntVarP(&f.Limit, "limit", "n", 50, "list at most so many; 0: all")
	return a.watchable(c)
}

func (a *app) errorShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "show NUMBER|ID",
		Short:   "Show all that was kept of a failed message",
		Example: "  sqlq error show 17\n  sqlq error show 17 -o json | jq .body",
		Args:    exactly("NUMBER or ID"),
		RunE: func(c *cobra.Command, args []string) error {
			db, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			defer db.Close()
			m, err := db.ShowFailed(c.Context(), args[0])
			if err != nil {
				return err
			}
			view := failedDetailView{failedView: viewFailed(m), Headers: headersOf(m.Headers), Chain: m.Chain, Stack: m.Stack, body: bodyOf(m.Body)}
			return a.printOne(view, func(w io.Writer) { a.writeFailed(w, m) })
		},
	}
}

func (a *app) writeFailed(w io.Writer, m ops.FailedMessage) {
	field(w, "number", fmt.Sprint(m.Number))
	field(w, "id", m.ID)
	field(w, "type", m.Type)
	field(w, "queue", m.Queue)
	field(w, "status", string(m.Status))
	field(w, "endpoint", m.Endpoint)
	field(w, "host", m.Host)
	field(w, "attempts", fmt.Sprint(m.Attempts))
	field(w, "replays", fmt.Sprint(m.Replays))
	field(w, "sent", a.whenInFull(m.SentAt))
	if m.ExpiresAt != nil {
		field(w, "expires", a.whenInFull(*m.ExpiresAt))
	}
	field(w, "first failed", a.whenInFull(m.FirstFailedAt))
	field(w, "failed", a.whenInFull(m.FailedAt))
	if m.ArchivedAt != nil {
		field(w, "archived", a.whenInFull(*m.ArchivedAt))
	}
	field(w, "group", m.Group)
	field(w, "error type", m.ErrorType)
	block(w, "error", m.Error)
	block(w, "chain", strings.Join(m.Chain, "\n"))
	block(w, "stack", m.Stack)
	block(w, "headers", pretty(m.Headers))
	if utf8.Valid(m.Body) {
		block(w, "body", pretty(m.Body))
	} else {
		block(w, "body, in base64", base64.StdEncoding.EncodeToString(m.Body))
	}
}

// pretty lays JSON out over several lines; other text stays as it is.
func pretty(text []byte) string {
	var b bytes.Buffer
	if json.Indent(&b, bytes.TrimSpace(text), "", "  ") != nil {
		return string(text)
	}
	return b.String()
}

func (a *app) errorReplayCommand() *cobra.Command {
	var f ops.Filter
	c := &cobra.Command{
		Use:   "replay [NUMBER|ID]...",
		Short: "Move failed messages back to their queues",
		Long: `Move failed messages back to their queues, the oldest first, where they start again at attempt 0. Messages that fail after
it began are left alone, archived ones too. A replay that was interrupted has moved some and can be run again; two that
run at once share the messages.`,
		Example: "  sqlq error replay 17 18\n  sqlq error replay --queue billing --group 5f2ab81c\n  sqlq error replay --all",
		RunE: func(c *cobra.Command, names []string) error {
			if err := a.checkFilter(c, &f, names); err != nil {
				return err
			}
			db, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			defer db.Close()
			var o ops.ReplayOptions
			if a.errTerminal {
				o.Progress = func(n int64) { fmt.Fprintf(a.err, "\rreplaying: %d", n) }
			}
			replayed, err := db.Replay(c.Context(), f, o)
			if a.errTerminal && replayed > 0 {
				fmt.Fprint(a.err, "\r")
			}
			if err != nil && replayed == 0 {
				return err
			}
			outcome := struct {
				Replayed int64 `json:"replayed"`
			}{replayed}
			return errors.Join(a.done(outcome, "replayed %s", plural(replayed, "message")), err)
		},
	}
	a.filterFlags(c, &f, failedMessages)
	c.Flags().IntVarP(&f.Limit, "limit", "n", 0, "replay at most so many; 0: all that are chosen")
	c.Flags().BoolVar(&f.All, "all", false, "replay every failed message")
	return c
}

func (a *app) errorArchiveCommand() *cobra.Command {
	var f ops.Filter
	c := &cobra.Command{
		Use:     "archive [NUMBER|ID]...",
		Short:   "Keep failed messages, but leave them out of lists and replays",
		Example: "  sqlq error archive 17 18\n  sqlq error archive --type sales.PlaceOrder",
		RunE: func(c *cobra.Command, names []string) error {
			if err := a.checkFilter(c, &f, names); err != nil {
				return err
			}
			db, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			defer db.Close()
			archived, err := db.Archive(c.Context(), f)
			if err != nil && archived == 0 {
				return err
			}
			outcome := struct {
				Archived int64 `json:"archived"`
			}{archived}
			return errors.Join(a.done(outcome, "archived %s", plural(archived, "message")), err)
		},
	}
	a.filterFlags(c, &f, failedMessages)
	c.Flags().IntVarP(&f.Limit, "limit", "n", 0, "archive at most so many; 0: all that are chosen")
	c.Flags().BoolVar(&f.All, "all", false, "archive every failed message")
	return c
}

// checkFilter refuses a command line that would change every failed message without saying so.
func (a *app) checkFilter(c *cobra.Command, f *ops.Filter, names []string) error {
	if err := a.chosenBy(f, names); err != nil {
		return err
	}
	switch {
	case f.ChoosesAll() && !f.All:
		return usageErrorf("this would %s every failed message: name messages, or give --queue, --type or --group, or --all to mean it", c.Name())
	case !f.ChoosesAll() && f.All:
		return usageErrorf("--all is every failed message: leave it out, or the names and filters")
	}
	return nil
}

// failedView is a failed message in JSON.
type failedView struct {
	Number        int64      `json:"number"`
	ID            string     `json:"id"`
	Status        ops.Status `json:"status"`
	Queue         string     `json:"queue"`
	Endpoint      string     `json:"endpoint"`
	Host          string     `json:"host"`
	Type          string     `json:"type"`
	Attempts      int        `json:"attempts"`
	Replays       int        `json:"replays"`
	SentAt        time.Time  `json:"sent_at"`
	ExpiresAt     *time.Time `json:"expires_at"`
	FirstFailedAt time.Time  `json:"first_failed_at"`
	FailedAt      time.Time  `json:"failed_at"`
	ArchivedAt    *time.Time `json:"archived_at"`
	ErrorType     string     `json:"error_type"`
	Error         string     `json:"error"`
	Group         string     `json:"group"`
}

// failedDetailView is a failed message in JSON with all that was kept of it.
type failedDetailView struct {
	failedView
	Headers json.RawMessage `json:"headers"`
	Chain   []string        `json:"chain"`
	Stack   string          `json:"stack,omitempty"`
	body
}

func viewFailed(m ops.FailedMessage) failedView {
	return failedView{m.Number, m.ID, m.Status, m.Queue, m.Endpoint, m.Host, m.Type, m.Attempts, m.Replays, m.SentAt.UTC(), utc(m.ExpiresAt),
		m.FirstFailedAt.UTC(), m.FailedAt.UTC(), utc(m.ArchivedAt), m.ErrorType, m.Error, m.Group}
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}
