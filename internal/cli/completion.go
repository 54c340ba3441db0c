package cli

import (
	"github.com/spf13/cobra"
)

// completionOptions are the arguments of `sqlq completion`.
type completionOptions struct {
	root  *cobra.Command // of the tree of commands
	shell string
}

func newCompletionCommand(e *env) *cobra.Command {
	var o completionOptions
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print the script with which a shell completes sqlq's command lines",
		Long: `Print the script with which a shell completes commands, flags, and the names of queues and message types, which it asks
the database for. Load it where the shell begins:

  bash        echo 'source <(sqlq completion bash)' >> ~/.bashrc     (needs the package bash-completion)
  zsh         sqlq completion zsh > "${fpath[1]}/_sqlq"              (needs compinit)
  fish        sqlq completion fish > ~/.config/fish/completions/sqlq.fish
  powershell  sqlq completion powershell >> $PROFILE`,
		Example:   "  source <(sqlq completion bash)\n  sqlq completion fish > ~/.config/fish/completions/sqlq.fish",
		Args:      exactly("the shell"),
		ValidArgs: shells,
		RunE: func(c *cobra.Command, args []string) error {
			o.root, o.shell = c.Root(), args[0]
			return runCompletion(e, &o)
		},
	}
}

func runCompletion(e *env, o *completionOptions) error {
	switch o.shell {
	case "bash":
		return o.root.GenBashCompletionV2(e.out, true)
	case "zsh":
		return o.root.GenZshCompletion(e.out)
	case "fish":
		return o.root.GenFishCompletion(e.out, true)
	case "powershell":
		return o.root.GenPowerShellCompletionWithDesc(e.out)
	}
	return usageErrorf("there is no completion for %q; there is bash, zsh, fish and powershell", o.shell)
}
