package cli

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newManCommand(e *env) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "man [COMMAND...]",
		Short: "Print a command's page for man, or write those of all commands",
		Long: `Print the page of a command, or of sqlq itself, in the format of man(1). With --dir the pages of all commands are
written into a folder, which is made where it is missing: sqlq.1, sqlq-queue.1, sqlq-queue-ls.1, ….`,
		Example: "  sqlq man error replay | man -l -\n  sqlq man --dir ~/.local/share/man/man1",
		RunE: func(c *cobra.Command, names []string) error {
			page := &doc.GenManHeader{Section: "1", Source: "sqlq", Manual: "sqlq"}
			root := c.Root()
			root.DisableAutoGenTag = true
			if c.Flags().Changed("dir") {
				if len(names) > 0 {
					return usageErrorf("--dir writes the pages of all commands: leave %q out", strings.Join(names, " "))
				}
				if err := os.MkdirAll(dir, 0o777); err != nil {
					return err
				}
				if err := doc.GenManTree(root, page, dir); err != nil {
					return fmt.Errorf("write the pages: %w", err)
				}
				e.say("wrote the pages of all commands into %s", dir)
				return nil
			}
			named, rest, err := root.Find(names)
			if err == nil && len(rest) > 0 {
				err = noCommand(named, rest)
			}
			if err != nil {
				return &codedError{code: exitUsage, err: err}
			}
			return doc.GenMan(named, page, e.out)
		},
		ValidArgsFunction: completeCommands,
	}
	c.Flags().StringVar(&dir, "dir", "", "write the pages of all commands into this `folder`")
	_ = c.MarkFlagDirname("dir")
	return c
}
