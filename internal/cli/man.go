package cli

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manOptions are the arguments and flags of `sqlq man`.
type manOptions struct {
	root  *cobra.Command // of the tree of commands
	names []string
	all   bool // the pages of all commands, into dir
	dir   string
}

func newManCommand(e *env) *cobra.Command {
	var o manOptions
	c := &cobra.Command{
		Use:   "man [COMMAND...]",
		Short: "Print a command's page for man, or write those of all commands",
		Long: `Print the page of a command, or of sqlq itself, in the format of man(1). With --dir the pages of all commands are
written into a folder, which is made where it is missing: sqlq.1, sqlq-queue.1, sqlq-queue-ls.1, ….`,
		Example: "  sqlq man error replay | man -l -\n  sqlq man --dir ~/.local/share/man/man1",
		RunE: func(c *cobra.Command, names []string) error {
			o.root, o.names, o.all = c.Root(), names, c.Flags().Changed("dir")
			return runMan(e, &o)
		},
		ValidArgsFunction: completeCommands,
	}
	c.Flags().StringVar(&o.dir, "dir", "", "write the pages of all commands into this `folder`")
	_ = c.MarkFlagDirname("dir")
	return c
}

func runMan(e *env, o *manOptions) error {
	page := &doc.GenManHeader{Section: "1", Source: "sqlq", Manual: "sqlq"}
	o.root.DisableAutoGenTag = true
	if o.all {
		if len(o.names) > 0 {
			return usageErrorf("--dir writes the pages of all commands: leave %q out", strings.Join(o.names, " "))
		}
		if err := os.MkdirAll(o.dir, 0o777); err != nil {
			return err
		}
		if err := doc.GenManTree(o.root, page, o.dir); err != nil {
			return fmt.Errorf("write the pages: %w", err)
		}
		e.say("wrote the pages of all commands into %s", o.dir)
		return nil
	}
	named, rest, err := o.root.Find(o.names)
	if err == nil && len(rest) > 0 {
		err = noCommand(named, rest)
	}
	if err != nil {
		return &codedError{code: exitUsage, err: err}
	}
	return doc.GenMan(named, page, e.out)
}
