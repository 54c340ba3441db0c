package cli

import (
	"github.com/spf13/cobra"
)

func newCompletionCommand(e *env) *cobra.Command {
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
			root := c.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(e.out, true)
			case "zsh":
				return root.GenZshCompletion(e.out)
			case "fish":
				return root.GenFishCompletion(e.out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(e.out)
			}
			return usageErrorf("there is no completion for %q; there is bash, zsh, fish and powershell", args[0])
		},
	}
}
