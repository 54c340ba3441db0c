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

// errorEdit is what the flags of `sqlq error edit` say.
type errorEdit struct {
	change
	bodyFile   string
	set, unset []string
}

func (a *app) errorEditCommand() *cobra.Command {
	var e errorEdit
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
		ValidArgsFunction: onlyFirst(a.completeFailed(&ops.Filter{}, ops.StatusAny)),
		RunE: func(c *cobra.Command, args []string) error {
			set, err := e.headers()
			if err != nil {
				return err
			}
			db, err := a.connectToChange(c.Context(), e.change)
			if err != nil {
				return err
			}
			defer db.Close()
			m, err := db.Failed.Show(c.Context(), args[0])
			if err != nil {
				return a.nothingIfMissing(err)
			}
			if e.bodyFile == "" && len(e.set)+len(e.unset) == 0 {
				return a.editInEditor(c.Context(), db, m, e.change)
			}
			edit, err := a.editByFlags(c.Context(), m, e, set)
			if err != nil {
				return err
			}
			return a.edit(c.Context(), db, m, edit, e.change)
		},
	}
	c.Flags().StringVar(&e.bodyFile, "body-file", "", "take the body from this `FILE`, - for standard input")
	c.Flags().StringArrayVar(&e.set, "set-header", nil, "give it this header, as `NAME=VALUE`; several times for several")
	c.Flags().StringArrayVar(&e.unset, "unset-header", nil, "take the header of this `NAME` off; several times for several")
	e.flags(c, asksNever)
	e.reasonFlag(c)
	return c
}

// headers returns the headers to set.
func (e errorEdit) headers() (map[string]string, error) {
	set := map[string]string{}
	own := func(flag, name string) error {
		if strings.HasPrefix(strings.ToLower(name), "sqlq-") {
			return usageErrorf("%s %s: headers that begin with sqlq- are the library's own", flag, name)
		}
		return nil
	}
	for _, h := range e.set {
		name, value, found := strings.Cut(h, "=")
		if !found {
			return nil, usageErrorf("--set-header %q: write NAME=VALUE", h)
		}
		if err := own("--set-header", name); err != nil {
			return nil, err
		}
		set[name] = value
	}
	for _, name := range e.unset {
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
func (a *app) editByFlags(ctx context.Context, m ops.FailedMessage, e errorEdit, set map[string]string) (edit ops.Edit, err error) {
	if len(e.set)+len(e.unset) > 0 {
		_, others, readable := ops.SplitHeaders(m.Headers)
		if !readable {
			return edit, errors.New("the headers of the message are no JSON object of strings, so none of them can be changed; without these flags they can be replaced in an editor")
		}
		for _, name := range e.unset {
			if _, there := others[name]; !there {
				return edit, fmt.Errorf("the message has no header %q; nothing was changed", name)
			}
			delete(others, name)
		}
		maps.Copy(others, set)
		edit.Headers = others
	}
	switch e.bodyFile {
	case "":
	case "-":
		edit.Body, err = io.ReadAll(a.reading(ctx, "the body"))
	default:
		edit.Body, err = os.ReadFile(e.bodyFile)
	}
	if err != nil {
		return edit, fmt.Errorf("read the body: %w", err)
	}
	return edit, nil
}

// edit changes the message, or shows what would change.
func (a *app) edit(ctx context.Context, db *database, m ops.FailedMessage, e ops.Edit, ch change) error {
	outcome := struct {
		Number  int64 `json:"number"`
		Changed bool  `json:"changed"`
		DryRun  bool  `json:"dry_run"`
	}{Number: m.Number, DryRun: ch.dryRun}
	edited, err := db.Failed.PreviewEdit(ctx, m, e)
	if err != nil {
		return err
	}
	changes := linediff.Between(textOf(m), textOf(edited))
	switch {
	case changes == "":
		return a.done(outcome, "nothing changed")
	case ch.dryRun:
		outcome.Changed = true
		if a.format == formatTable {
			if _, err := io.WriteString(a.out, term.Visible(changes)); err != nil {
				return err
			}
		}
		return a.done(outcome, "failed message %d would be changed like this; without --dry-run it is", m.Number)
	}
	if outcome.Changed, err = db.Failed.Edit(ctx, m, e); err != nil {
		return err
	}
	if m.Status == ops.StatusArchived {
		return a.done(outcome, "edited archived message %d", m.Number)
	}
	return a.done(outcome, "edited failed message %d; to send it back to its queue: sqlq error replay %d", m.Number, m.Number)
}

// editInEditor has the operator edit the message, again and again while what comes of it cannot be taken.
func (a *app) editInEditor(ctx context.Context, db *database, m ops.FailedMessage, ch change) error {
	editor, err := a.editor()
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
		given, err := a.runEditor(editor, path)
		if err == nil && (given == text || strings.TrimSpace(given) == "") {
			a.say("nothing changed")
			return os.Remove(path)
		}
		var e ops.Edit
		if err == nil {
			e, err = readEdited(m, given)
		}
		if err == nil {
			err = a.edit(ctx, db, m, e, ch)
		}
		if err == nil {
			return os.Remove(path)
		}
		kept := fmt.Errorf("%w\nNothing was changed; your text is kept in %s", err, path)
		if ctx.Err() != nil || !a.attended() || errors.Is(err, ops.ErrChanged) || isGone(err) {
			return kept
		}
		a.say("sqlq: %s", describe(err))
		fmt.Fprint(a.err, "Edit again? [y/N] ")
		if answer := strings.ToLower(a.answer(ctx)); answer != "y" && answer != "yes" {
			return fmt.Errorf("nothing was changed; your text is kept in %s", path)
		}
	}
}

func isGone(err error) bool {
	var gone *ops.NoFailedError
	return errors.As(err, &gone)
}

// editor returns the operator's editor: a command line.
func (a *app) editor() (string, error) {
	for _, name := range []string{"VISUAL", "EDITOR"} {
		if editor := os.Getenv(name); strings.TrimSpace(editor) != "" {
			return editor, nil
		}
	}
	if a.inTerminal {
		return "vi", nil
	}
	return "", usageErrorf("neither $VISUAL nor $EDITOR says what to edit with; give --body-file or --set-header instead")
}

// runEditor runs the editor on a file and returns what the file then holds.
func (a *app) runEditor(editor, path string) (text string, err error) {
	// A shell splits the command line. It is not tied to a context: Ctrl-C is for the editor to understand.
	c := exec.Command("sh", "-c", editor+` "$1"`, "sh", path)
	c.Stdin, c.Stdout, c.Stderr = a.in, a.stdout(), a.err
	if a.format != formatTable || !a.outTerminal {
		c.Stdout = a.err // what is printed there is data
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
