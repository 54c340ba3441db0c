package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
)

// helpWidth is how many columns the flags may take in a help text that nobody reads on a terminal.
const helpWidth = 100

// Commands stand in the help in the order in which they are added, which is that of use.
func init() {
	cobra.EnableCommandSorting = false
	cobra.AddTemplateFunc("fitted", fitted)
}

// newHelpCommand is cobra's, with suggestions for what is mistyped.
// helpOptions are the arguments of `sqlq help`.
type helpOptions struct {
	root  *cobra.Command // of the tree of commands
	names []string
}

func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND...]",
		Short:   "Explain a command, as its --help does",
		Example: "  sqlq help\n  sqlq help error replay",
		RunE: func(c *cobra.Command, names []string) error {
			return runHelp(&helpOptions{c.Root(), names})
		},
		ValidArgsFunction: completeCommands,
	}
}

func runHelp(o *helpOptions) error {
	named, rest, err := o.root.Find(o.names)
	if err == nil {
		err = noCommand(named, rest)
	}
	if err != nil {
		return &codedError{code: exitUsage, err: err}
	}
	named.InitDefaultHelpFlag()
	return named.Help()
}

// completeCommands completes the path of a command.
func completeCommands(c *cobra.Command, names []string, _ string) (found []string, _ cobra.ShellCompDirective) {
	named, rest, err := c.Root().Find(names)
	if err != nil || len(rest) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for _, sub := range named.Commands() {
		if sub.IsAvailableCommand() {
			found = append(found, sub.Name()+"\t"+sub.Short)
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

// fitted fills a text anew so that its lines fit a width, those left out that are indented. Width 0 leaves it as it is.
func fitted(text string, width int) string {
	if width == 0 {
		return text
	}
	var out, paragraph []string
	flush := func() {
		if paragraph != nil {
			out = append(out, folded(strings.Fields(strings.Join(paragraph, " ")), width)...)
			paragraph = nil
		}
	}
	for _, line := range strings.Split(text, "\n") {
		if line != "" && !strings.HasPrefix(line, " ") {
			paragraph = append(paragraph, line)
			continue
		}
		flush()
		out = append(out, line)
	}
	flush()
	return strings.Join(out, "\n")
}

// folded puts words into lines of a width.
func folded(words []string, width int) (lines []string) {
	line := ""
	for _, word := range words {
		if line != "" && term.Width(line)+1+term.Width(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

func helpTemplate(e *env) string {
	return fmt.Sprintf(`{{with (or .Long .Short)}}{{fitted . %d | trimTrailingWhitespaces}}

{{end}}{{.UsageString}}`, e.width)
}

// usageTemplate is cobra's, with flags that fit the width, and without the line that says that a noun may stand alone.
func usageTemplate(e *env) string {
	width := helpWidth
	if e.width > 0 {
		width = min(e.width, helpWidth)
	}
	return fmt.Sprintf(`Usage:
{{- if .HasAvailableSubCommands}}
  {{.CommandPath}} COMMAND
{{- else}}
  {{.UseLine}}
{{- end}}
{{- if .Aliases}}

Aliases:
  {{.NameAndAliases}}
{{- end}}
{{- if .HasExample}}

Examples:
{{.Example}}
{{- end}}
{{- if .HasAvailableSubCommands}}
{{- $all := .Commands}}
{{- if .Groups}}
{{- range $group := .Groups}}

{{.Title}}
{{- range $all}}
{{- if and (eq .GroupID $group.ID) (or .IsAvailableCommand (eq .Name "help"))}}
  {{rpad .Name .NamePadding}}  {{.Short}}
{{- end}}
{{- end}}
{{- end}}
{{- else}}

Commands:
{{- range $all}}
{{- if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}}  {{.Short}}
{{- end}}
{{- end}}
{{- end}}
{{- end}}
{{- if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsagesWrapped %[1]d | trimTrailingWhitespaces}}
{{- end}}
{{- if .HasAvailableInheritedFlags}}

Flags of every command:
{{.InheritedFlags.FlagUsagesWrapped %[1]d | trimTrailingWhitespaces}}
{{- end}}
{{- if .HasAvailableSubCommands}}

Use "{{.CommandPath}} COMMAND --help" for more about a command.
{{- end}}
`, width)
}
