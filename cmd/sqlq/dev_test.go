//go:build unix

package main

import (
	"bufio"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// sqlq dev prints the URL of a migrated database, stays until it is told to end, and then takes the server with it.
func TestDevStays(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			c, line := start(t, "dev")
			url := strings.TrimSpace(line)
			conn, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(t.Context())
			var made bool
			if err := conn.QueryRow(t.Context(), `SELECT sqlq.create_queue('sales')`).Scan(&made); err != nil || !made {
				t.Errorf("the schema is not there: %v", err)
			}
			if err := c.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if err := c.Wait(); err != nil {
				t.Errorf("ended with %v", err)
			}
			if _, err := pgx.Connect(t.Context(), url); err == nil {
				t.Error("the server still runs")
			}
		})
	}
}

// A signal goes to the command, whose exit code is sqlq's, and the server goes too.
func TestDevForwardsSignals(t *testing.T) {
	t.Parallel()
	c, line := start(t, "dev", "--", "sh", "-c", `trap 'kill $!; exit 3' TERM; echo "$DATABASE_URL"; sleep 60 & wait`)
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	if code := c.ProcessState.ExitCode(); code != 3 {
		t.Errorf("exit code %d, want the command's 3", code)
	}
	if _, err := pgx.Connect(t.Context(), strings.TrimSpace(line)); err == nil {
		t.Error("the server still runs")
	}
}

// start starts sqlq as a process and returns it with the first line that it prints.
func start(t *testing.T, args ...string) (*exec.Cmd, string) {
	t.Helper()
	c := exec.Command(program(t), args...)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	c.Stderr = &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c.ProcessState == nil { // the test gave up before it had waited
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = c.Wait()
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	return c, line
}
