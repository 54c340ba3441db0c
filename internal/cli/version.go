package cli

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/migrations"
)

func newVersionCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this program and of the schema it needs",
		Example: "  sqlq version\n  sqlq version -o json | jq .schema_version",
		Args:    noMoreThan(0),
		RunE: func(*cobra.Command, []string) error {
			return runVersion(e)
		},
	}
}

func runVersion(e *env) error {
	v := struct {
		Version string `json:"version"`
		Schema  int64  `json:"schema_version"`
		Go      string `json:"go"`
	}{programVersion(), migrations.Latest(), runtime.Version()}
	return e.printOne(v, func(w io.Writer) {
		_, _ = io.WriteString(w, versionText())
	})
}

// versionText is what --version prints, too.
func versionText() string {
	return fmt.Sprintf("sqlq %s (schema version %d, %s)\n", programVersion(), migrations.Latest(), runtime.Version())
}

func programVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
