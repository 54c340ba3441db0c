package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/migrations"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// doctorOptions are the flags of `sqlq doctor`.
type doctorOptions struct {
	change
	ops.DoctorOptions
	fix bool
}

func newDoctorCommand(e *env) *cobra.Command {
	o := doctorOptions{DoctorOptions: ops.DoctorOptions{WantVersion: migrations.Latest()}}
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what keeps messages from flowing, or will",
		Long: `Look for what keeps messages from flowing, or will: the connection and the server, the schema and whether its
functions are pinned to it, what this role may do, instances that crashed, messages that nobody moves or handles, inboxes that forget
nothing, who holds vacuum back and what that costs, dead rows and empty space, autovacuum's settings, numbers that run out, invalid indexes.

Each finding says what is the case, why it matters, and what fixes it. A problem means that something does not work or will
stop; a warning, that it works worse than it could or needs looking at; a note needs nothing. Every check takes a bounded
time and reads a bounded number of rows; one that this role may not make is skipped and says so.

With --fix it fixes what is safe to fix: it marks crashed instances and gives their messages back, moves delayed messages
that are due, and sets the tables' lost settings for autovacuum. That is written down as an operation.

Behind a transaction pooler name the address past it that endpoints have as their Config.ListenURL: then the pooler is a
note, and the check of notifications is made there. What else is as it should be, for now, can be named with --known.

The exit code is 3 when a problem or a warning is left.`,
		Example:     "  sqlq doctor\n  sqlq doctor --role consumer --queue billing --long 1m\n  sqlq doctor --fix --yes -o json",
		Args:        noMoreThan(0),
		Annotations: map[string]string{needs: "operator"},
		RunE: func(c *cobra.Command, _ []string) error {
			return runDoctor(c.Context(), e, &o)
		},
	}
	flags := c.Flags()
	flags.StringVar(&o.Kind, "role", "", "what this role should be: producer, consumer, operator or viewer (default: what it seems meant for)")
	flags.StringSliceVar(&o.Queues, "queue", nil, "the queues that it should be that of; several (default: all)")
	flags.StringVar(&o.ListenURL, "listen-url", "", "the endpoints' Config.ListenURL, past a transaction pooler (default $SQLQ_LISTEN_URL)")
	flags.StringSliceVar(&o.Known, "known", nil, "what this `CHECK` finds is known: it is told as a note; several")
	o.Long, o.Late, o.Within = 5*time.Minute, time.Minute, 5*time.Second
	flags.Var(duration{&o.Long, false}, "long", "report transactions that are open for longer")
	flags.Var(duration{&o.Late, false}, "late", "report messages that nobody has moved or handled for longer")
	flags.Int64Var(&o.Dead, "dead", 100_000, "report tables with more dead rows")
	o.Bloat = 256 << 20
	flags.Var((*size)(&o.Bloat), "bloat", "report tables with more empty space")
	flags.Int64Var(&o.Failures, "failures", 1_000, "report when more messages failed within an hour")
	flags.Var(duration{&o.Within, false}, "within", "time for each check")
	flags.BoolVar(&o.fix, "fix", false, "fix what is safe to fix; asks first")
	o.flags(c, asksAlways)
	o.reasonFlag(c)
	_ = c.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(ops.RoleKinds, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("queue", completeQueues(e))
	_ = c.RegisterFlagCompletionFunc("known", cobra.FixedCompletions(ops.CheckNames(), cobra.ShellCompDirectiveNoFileComp))
	return c
}

func runDoctor(ctx context.Context, e *env, o *doctorOptions) error {
	if o.Kind != "" && !slices.Contains(ops.RoleKinds, o.Kind) {
		return usageErrorf("--role %s: there are %s", o.Kind, strings.Join(ops.RoleKinds, ", "))
	}
	for _, name := range o.Known {
		if !slices.Contains(ops.CheckNames(), name) {
			return usageErrorf("--known %q: there are %s", name, strings.Join(ops.CheckNames(), ", "))
		}
	}
	source := "--listen-url"
	if o.ListenURL == "" {
		o.ListenURL, source = os.Getenv("SQLQ_LISTEN_URL"), "$SQLQ_LISTEN_URL"
	}
	if o.ListenURL != "" {
		if _, err := parsed(o.ListenURL, source); err != nil {
			return usageErrorf("%w", err)
		}
	}
	db, err := e.connectAnySchema(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	d, err := db.Doctor.Examine(ctx, o.DoctorOptions)
	if err != nil {
		return err
	}
	fixable := d.Fixable()
	var failure error
	switch {
	case !o.fix || len(fixable) == 0:
	case o.dryRun:
		for _, f := range db.Doctor.PreviewFix(d) {
			e.say("would fix: %s", term.OneLine(f.What))
		}
	default:
		if err := e.confirm(ctx, o.change, fmt.Sprintf("fix %s in schema %q of %s, such as: %s", plural(int64(len(fixable)), "finding"), e.schema, db.where, term.OneLine(fixable[0].What))); err != nil {
			return errors.Join(printDiagnosis(e, d), err)
		}
		failure = db.By(actor(o.change)).Doctor.Fix(ctx, d)
	}
	if err := errors.Join(printDiagnosis(e, d), failure); err != nil {
		return err
	}
	return judge(e, d, db.where, o.fix)
}

// judge says what came out, and makes the exit code.
func judge(e *env, d *ops.Diagnosis, where string, fix bool) error {
	problems, warnings, notes := d.Count(ops.SeverityProblem), d.Count(ops.SeverityWarning), d.Count(ops.SeverityNote)
	skipped := int64(0)
	for _, c := range d.Checks {
		if c.NotRun != "" {
			skipped++
		}
	}
	text := fmt.Sprintf("%s of schema %q in %s: ", plural(int64(len(d.Checks)), "check"), e.schema, where)
	if problems+warnings == 0 {
		text += "nothing is wrong"
	} else {
		text += plural(problems, "problem") + ", " + plural(warnings, "warning")
	}
	if notes > 0 {
		text += ", " + plural(notes, "note")
	}
	if skipped > 0 {
		text += fmt.Sprintf("; %d skipped", skipped)
	}
	e.say("%s", text)
	if n := len(d.Fixable()); n > 0 && !fix {
		e.say("%s can be fixed with: sqlq doctor --fix", plural(int64(n), "finding"))
	}
	if problems+warnings > 0 {
		return &codedError{code: exitFindings}
	}
	return nil
}

func printDiagnosis(e *env, d *ops.Diagnosis) error {
	if e.format != formatTable {
		return printList(e, d.Checks, nil)
	}
	for _, c := range d.Checks {
		if len(c.Findings) == 0 && c.NotRun == "" {
			writeFinding(e, e.out, "ok", c.Name, c.About)
		}
		for _, f := range c.Findings {
			writeFinding(e, e.out, string(f.Severity), c.Name, f.What)
			writeFinding(e, e.out, "", "why", f.Why)
			switch {
			case f.Fixed != "":
				writeFinding(e, e.out, "", "fixed", f.Fixed)
			case f.SQL:
				writeFinding(e, e.out, "", "fix, SQL", f.Fix)
			case f.Fix != "":
				writeFinding(e, e.out, "", "fix", f.Fix)
			}
		}
		if c.NotRun != "" {
			writeFinding(e, e.out, "skipped", c.Name, c.NotRun)
		}
	}
	return nil
}

var resultStyle = map[string]term.Style{"ok": term.Green, "skipped": term.Faint, "note": term.Faint, "warning": term.Yellow, "problem": term.Red}

// writeFinding writes a line of doctor's: a result, a name, and a text that is broken where the terminal ends.
func writeFinding(e *env, w io.Writer, result, name, text string) {
	const indent = 25
	lines := []string{term.OneLine(text)}
	if e.width-indent >= 20 { // else there is no room for words
		lines = folded(strings.Fields(lines[0]), e.width-indent)
	}
	if result == "" {
		name = "  " + name
	}
	fmt.Fprintf(w, "%s  %-14s  %s\n", e.paint(resultStyle[result], fmt.Sprintf("%-7s", result)), name, lines[0])
	for _, line := range lines[1:] {
		fmt.Fprintf(w, "%*s%s\n", indent, "", line)
	}
}
