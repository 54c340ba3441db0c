package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/linediff"
	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// errorEditOptions are the arguments and flags of `sqlq error edit`.
type errorEditOptions struct {
	change
	name       string
	bodyFile   string
	set, unset []string
}

func newErrorEditCommand(e *env) *cobra.Command {
	var o errorEditOptions
	c := &cobra.Command{
		Use:   "edit NUMBER|ID",
		Short: "Change the headers and the body of a failed message",
		Long: `Change the headers and the body of a failed message, in $VISUAL or $EDITOR, or as the flags say. The message stays in the
error table until it is replayed, and its history keeps the original. What could not be sent is not taken: then you can
edit again, and the text is not lost. Headers that begin with sqlq- are the library's own, and stay.`,
		Example: `  sqlq error edit 17
  sqlq error edit 17 --set-header tenant=north --unset-header trace
  sqlq error show 17 --body > body.json
  sqlq error edit 17 --body-file body.json`,
		Args:              exactly("NUMBER or ID"),
		ValidArgsFunction: onlyFirst(completeFailed(e, &ops.Filter{}, ops.StatusAny)),
		RunE: func(c *cobra.Command, args []string) error {
			o.name = args[0]
			return runErrorEdit(c.Context(), e, &o)
		},
	}
	c.Flags().StringVar(&o.bodyFile, "body-file", "", "take the body from this `FILE`, - for standard input")
	c.Flags().StringArrayVar(&o.set, "set-header", nil, "give it this header, as `NAME=VALUE`, a NAME in double quotes being a JSON string; several times for several")
	c.Flags().StringArrayVar(&o.unset, "unset-header", nil, "take the header of this `NAME` off; several times for several")
	o.flags(c, asksNever)
	o.reasonFlag(c)
	return c
}

func runErrorEdit(ctx context.Context, e *env, o *errorEditOptions) error {
	set, err := o.headers()
	if err != nil {
		return err
	}
	db, err := e.connectToChange(ctx, o.change)
	if err != nil {
		return err
	}
	defer db.Close()
	m, err := db.Failed.Show(ctx, o.name)
	if err != nil {
		return nothingIfMissing(err)
	}
	if o.bodyFile == "" && len(o.set)+len(o.unset) == 0 {
		return editInEditor(ctx, e, db, m, o.change)
	}
	edit, err := editByFlags(ctx, e, m, o, set)
	if err != nil {
		return err
	}
	return applyEdit(ctx, e, db, m, edit, o.change)
}

// headers returns the headers to set.
func (o *errorEditOptions) headers() (map[string]string, error) {
	set := map[string]string{}
	own := func(flag, name string) error {
		if strings.HasPrefix(strings.ToLower(name), "sqlq-") {
			return usageErrorf("%s %s: headers that begin with sqlq- are the library's own", flag, name)
		}
		return nil
	}
	for _, h := range o.set {
		name, value, found := cutHeader(h, "=")
		if !found {
			return nil, usageErrorf("--set-header %q: write NAME=VALUE", h)
		}
		if err := own("--set-header", name); err != nil {
			return nil, err
		}
		set[name] = value
	}
	for _, name := range o.unset {
		if err := own("--unset-header", name); err != nil {
			return nil, err
		}
		if _, both := set[name]; both {
			return nil, usageErrorf("header %q is both set and unset", name)
		}
	}
	return set, nil
}

// editByFlags returns the edit that the flags say.
func editByFlags(ctx context.Context, e *env, m ops.FailedMessage, o *errorEditOptions, set map[string]string) (edit ops.Edit, err error) {
	if len(o.set)+len(o.unset) > 0 {
		_, others, readable := ops.SplitHeaders(m.Headers)
		if !readable {
			return edit, errors.New("the headers of the message are no JSON object of strings, so none of them can be changed; without these flags they can be replaced in an editor")
		}
		for _, name := range o.unset {
			if _, there := others[name]; !there {
				return edit, fmt.Errorf("the message has no header %q; nothing was changed", name)
			}
			delete(others, name)
		}
		maps.Copy(others, set)
		edit.Headers = others
	}
	switch o.bodyFile {
	case "":
	case "-":
		edit.Body, err = io.ReadAll(e.reading(ctx, "the body"))
	default:
		edit.Body, err = os.ReadFile(o.bodyFile)
	}
	if err != nil {
		return edit, fmt.Errorf("read the body: %w", err)
	}
	return edit, nil
}

// applyEdit changes the message, or shows what would change.
func applyEdit(ctx context.Context, e *env, db *database, m ops.FailedMessage, edit ops.Edit, ch change) error {
	outcome := struct {
		Number  int64 `json:"number"`
		Changed bool  `json:"changed"`
		DryRun  bool  `json:"dry_run"`
	}{Number: m.Number, DryRun: ch.dryRun}
	edited, err := db.Failed.PreviewEdit(ctx, m, edit)
	if err != nil {
		return err
	}
	changes := linediff.Between(textOf(m), textOf(edited))
	switch {
	case changes == "":
		return e.done(outcome, "nothing changed")
	case ch.dryRun:
		outcome.Changed = true
		if e.format == formatTable {
			if _, err := io.WriteString(e.out, term.Visible(changes)); err != nil {
				return err
			}
		}
		return e.done(outcome, "failed message %d would be changed like this; without --dry-run it is", m.Number)
	}
	if outcome.Changed, err = db.Failed.Edit(ctx, m, edit); err != nil {
		return err
	}
	if m.Status == ops.StatusArchived {
		return e.done(outcome, "edited archived message %d", m.Number)
	}
	return e.done(outcome, "edited failed message %d; to send it back to its queue: sqlq error replay %d", m.Number, m.Number)
}

// editInEditor has the operator edit the message, again and again while what comes of it cannot be taken.
func editInEditor(ctx context.Context, e *env, db *database, m ops.FailedMessage, ch change) error {
	editor, err := editorCommand(e)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp("", fmt.Sprintf("sqlq-error-%d-*.txt", m.Number)) // only its owner may read it
	if err != nil {
		return fmt.Errorf("make a file to edit: %w", err)
	}
	path, text := file.Name(), editable(m)
	_, err = file.WriteString(text)
	if err := errors.Join(err, file.Close()); err != nil {
		return errors.Join(fmt.Errorf("write the file to edit: %w", err), os.Remove(path))
	}
	for {
		given, err := runEditor(e, editor, path)
		if err == nil && (given == text || strings.TrimSpace(given) == "") {
			e.say("nothing changed")
			return os.Remove(path)
		}
		var edit ops.Edit
		if err == nil {
			edit, err = readEdited(m, given)
		}
		if err == nil {
			err = applyEdit(ctx, e, db, m, edit, ch)
		}
		if err == nil {
			return os.Remove(path)
		}
		kept := fmt.Errorf("%w\nNothing was changed; your text is kept in %s", err, path)
		if ctx.Err() != nil || !e.attended() || errors.Is(err, ops.ErrChanged) || isGone(err) {
			return kept
		}
		e.say("sqlq: %s", describe(err))
		fmt.Fprint(e.err, "Edit again? [y/N] ")
		if answer := strings.ToLower(e.answer(ctx)); answer != "y" && answer != "yes" {
			return fmt.Errorf("nothing was changed; your text is kept in %s", path)
		}
	}
}

func isGone(err error) bool {
	var gone *ops.NoFailedError
	return errors.As(err, &gone)
}

// editorCommand returns the operator's editor: a command line.
func editorCommand(e *env) (string, error) {
	for _, name := range []string{"VISUAL", "EDITOR"} {
		if editor := os.Getenv(name); strings.TrimSpace(editor) != "" {
			return editor, nil
		}
	}
	if e.inTerminal {
		return "vi", nil
	}
	return "", usageErrorf("neither $VISUAL nor $EDITOR says what to edit with; give --body-file or --set-header instead")
}

// runEditor runs the editor on a file and returns what the file then holds.
func runEditor(e *env, editor, path string) (text string, err error) {
	// A shell splits the command line. It is not tied to a context: Ctrl-C is for the editor to understand.
	c := exec.Command("sh", "-c", editor+` "$1"`, "sh", path)
	c.Stdin, c.Stdout, c.Stderr = e.in, e.stdout(), e.err
	if e.format != formatTable || !e.outTerminal {
		c.Stdout = e.err // what is printed there is data
	}
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("the editor %q failed: %w", editor, err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read what was edited: %w", err)
	}
	return string(b), nil
}
