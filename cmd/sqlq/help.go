package main

import "fmt"

// helpWidth is how many columns a help text may take that nobody reads on a terminal.
const helpWidth = 100

// usageTemplate is cobra's, with flags that fit the width, and without the line that says that a noun may stand alone.
func (a *app) usageTemplate() string {
	width := helpWidth
	if a.width > 0 {
		width = min(a.width, helpWidth)
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
