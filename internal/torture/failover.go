package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"

	"github.com/sqlq/sqlq/internal/devpg"
	"github.com/sqlq/sqlq/internal/torture/failover"
)

// failoverScenario is one of its own: see package failover.
const failoverScenario = "failover"

func runFailover(ctx context.Context, rate int, self, format string, out, errs io.Writer) int {
	server, err := devpg.TestOptions()
	if err != nil {
		fmt.Fprintln(errs, err)
		return 2
	}
	result, err := failover.Run(ctx, failover.Options{
		Child: func() *exec.Cmd { return exec.Command(self) }, Rate: rate, Server: server, Log: errs,
	})
	if err != nil {
		fmt.Fprintln(errs, "torture:", err)
		return 1
	}
	if format == "json" {
		lines := json.NewEncoder(out)
		lines.SetIndent("", "  ")
		err = lines.Encode(result)
	} else {
		_, err = fmt.Fprintf(out, "%d messages and two failovers: %d lost, %d lost that the asynchronous standby never had, %d double effects, work again after %.1f s\n",
			result.Messages, result.Lost, result.LostAsync, result.DoubleEffects, result.RecoverySeconds)
	}
	if err != nil {
		fmt.Fprintln(errs, err)
		return 1
	}
	if err := result.Err(); err != nil {
		fmt.Fprintln(errs, "wrong:", err)
		return 1
	}
	return 0
}
