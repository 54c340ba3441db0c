// Command sqlq is the operator's command line: queues, failed messages, migrations, and a throw-away server to try things
// on. `sqlq help` lists what it can do.
package main

import (
	"os"

	"github.com/sqlq/sqlq/internal/cli"
)

func main() { os.Exit(cli.Main()) }
