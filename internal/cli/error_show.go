package cli

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// errorShowOptions are the arguments and flags of `sqlq error show`.
type errorShowOptions struct {
	name      string
	bodyAlone bool
}

func newErrorShowCommand(e *env) *cobra.Command {
	var o errorShowOptions
	c := &cobra.Command{
		Use:   "show NUMBER|ID",
		Short: "Show all that was kept of a failed message",
		Long: `Show all that was kept of a failed message: how it failed, its headers and body, and its history: how it had failed before
it was replayed, and what operators did to it.

With --body it writes the body alone, byte for byte, so that it can be edited and given to sqlq error edit --body-file. Tools
that read JSON may change it: jq before release 1.7 rounds whole numbers beyond 2^53.`,
		Example:           "  sqlq error show 17\n  sqlq error show 17 --body > body.json",
		Args:              exactly("NUMBER or ID"),
		ValidArgsFunction: onlyFirst(completeFailed(e, &ops.Filter{}, ops.StatusAny)),
		RunE: func(c *cobra.Command, args []string) error {
			o.name = args[0]
			return runErrorShow(c.Context(), e, &o)
		},
	}
	c.Flags().BoolVar(&o.bodyAlone, "body", false, "write the body alone, as it is")
	return c
}

func runErrorShow(ctx context.Context, e *env, o *errorShowOptions) error {
	db, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	m, err := db.Failed.Show(ctx, o.name)
	if err != nil {
		return nothingIfMissing(err)
	}
	if o.bodyAlone {
		return writeBodyAlone(e, m.Body)
	}
	history, err := db.History(ctx, m.ID)
	if err != nil {
		return err
	}
	return e.printOne(ops.FailedDetail{FailedMessage: m, History: history}, func(w io.Writer) {
		writeFailed(e, w, m)
		writeHistory(e, w, m, history)
	})
}

// writeBodyAlone writes a body as it is; on a terminal without what that would obey.
func writeBodyAlone(e *env, body []byte) error {
	if e.format != formatTable {
		return usageErrorf("--body writes the body as it is, and -o %s the message; take one of them", e.format)
	}
	if e.outTerminal {
		body = append([]byte(term.Visible(string(body))), '\n')
	}
	_, err := e.out.Write(body)
	return err
}

func writeFailed(e *env, w io.Writer, m ops.FailedMessage) {
	field(w, "number", fmt.Sprint(m.Number))
	field(w, "id", m.ID)
	field(w, "type", m.Type)
	field(w, "queue", m.Queue)
	field(w, "status", string(m.Status))
	field(w, "endpoint", m.Endpoint)
	field(w, "host", m.Host)
	field(w, "attempts", fmt.Sprint(m.Attempts))
	field(w, "replays", fmt.Sprint(m.Replays))
	field(w, "sent", e.whenInFull(m.SentAt))
	if m.ExpiresAt != nil {
		field(w, "expires", e.whenInFull(*m.ExpiresAt))
	}
	field(w, "first failed", e.whenInFull(m.FirstFailedAt))
	field(w, "failed", e.whenInFull(m.FailedAt))
	if m.ArchivedAt != nil {
		field(w, "archived", e.whenInFull(*m.ArchivedAt))
	}
	field(w, "group", m.Group)
	field(w, "error type", m.ErrorType)
	block(w, "error", m.Error)
	block(w, "chain", strings.Join(m.Chain, "\n"))
	block(w, "stack", m.Stack)
	block(w, "headers", pretty(m.Headers))
	writeBody(w, m.Body)
}

// writeHistory writes what became of a message before, the first of it first.
func writeHistory(e *env, w io.Writer, m ops.FailedMessage, history []ops.Past) {
	if len(history) == 0 {
		return
	}
	var text strings.Builder
	var last string
	failed := func(line string) {
		if line != last { // two operations may have found the same failure
			text.WriteString(line)
		}
		last = line
	}
	for _, p := range history {
		if p.FailedAt != nil {
			failed(fmt.Sprintf("%s  failed in %s after %s on %s: %s\n", e.when(*p.FailedAt), p.Queue, plural(int64(p.Attempts), "attempt"), p.FailedOn, term.OneLine(p.Error)))
		}
		fmt.Fprintf(&text, "%s  %s by %s", e.when(p.At), p.What, by(p))
		if p.Reason != "" {
			fmt.Fprintf(&text, ": %s", term.OneLine(p.Reason))
		}
		text.WriteString("\n")
		if p.What == "edit" {
			headers := "{}"
			if p.Headers != nil {
				headers = string(p.Headers)
			}
			fmt.Fprintf(&text, "  headers before: %s\n", term.Cut(term.OneLine(headers), shownBefore))
		}
		if p.Body != nil {
			fmt.Fprintf(&text, "  body before: %s\n", oneLineBody(p.Body))
		}
	}
	failed(fmt.Sprintf("%s  failed in %s after %s on %s: %s\n", e.when(m.FailedAt), m.Queue, plural(int64(m.Attempts), "attempt"), m.Host, term.OneLine(m.Error)))
	block(w, "history", text.String())
}

// by names who did something.
func by(p ops.Past) string {
	who := p.OSUser
	if who == "" {
		who = "somebody"
	}
	if p.Host != "" {
		who += "@" + p.Host
	}
	if p.Role != "" {
		who += " as " + p.Role
	}
	if p.Operation != 0 {
		who += fmt.Sprintf(", operation %d", p.Operation)
	}
	return term.OneLine(who)
}

// shownBefore is how many characters are shown of what an edit replaced; JSON has it all.
const shownBefore = 2000

func oneLineBody(body []byte) string {
	if !utf8.Valid(body) {
		return "in base64: " + term.Cut(base64.StdEncoding.EncodeToString(body), shownBefore)
	}
	return term.Cut(term.OneLine(string(body)), shownBefore)
}
