//go:build unix

package cli

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// sqlq dev prints the URL of a migrated database, stays until it is told to end, and then takes the server with it.
func TestDevStays(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			own := "XDG_RUNTIME_DIR=" + t.TempDir()
			c, line := start(t, own, "dev")
			url := strings.TrimSpace(line)
			if noted, err := devURL(t, own); err != nil || noted != url {
				t.Errorf("sqlq dev --url: %q, %v; want %q", noted, err, url)
			}
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
			if noted, err := devURL(t, own); err == nil {
				t.Errorf("sqlq dev --url still finds %q", noted)
			}
		})
	}
}

// devURL is what sqlq dev --url prints.
func devURL(t *testing.T, env string) (string, error) {
	t.Helper()
	c := exec.Command(program(t), "dev", "--url")
	c.Env = append(os.Environ(), env)
	out, err := c.Output()
	return strings.TrimSpace(string(out)), err
}

// Of several servers the one that was started last is found, also when an earlier one ends. One that was killed is not
// taken for one that runs.
func TestDevURLOfTheLastServer(t *testing.T) {
	t.Parallel()
	own := "XDG_RUNTIME_DIR=" + t.TempDir()
	first, _ := start(t, own, "dev")
	last, line := start(t, own, "dev")
	if err := first.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := first.Wait(); err != nil {
		t.Error(err)
	}
	if noted, err := devURL(t, own); err != nil || noted != strings.TrimSpace(line) {
		t.Errorf("%q, %v; want %q", noted, err, line)
	}
	if err := last.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = last.Wait()
	deadline := time.Now().Add(30 * time.Second)
	for { // the server's guard ends it
		noted, err := devURL(t, own)
		if err != nil {
			if e := new(exec.ExitError); !errors.As(err, &e) || e.ExitCode() != exitConnect || !strings.Contains(string(e.Stderr), "start one, and leave it running: sqlq dev") {
				t.Errorf("%v", err)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still finds %q", noted)
		}
	}
}

// A signal goes to the command, whose exit code is sqlq's, and the server goes too.
func TestDevForwardsSignals(t *testing.T) {
	t.Parallel()
	c, line := start(t, "", "dev", "--", "sh", "-c", `trap 'kill $!; exit 3' TERM; echo "$DATABASE_URL"; sleep 60 & wait`)
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

// start starts sqlq as a process, with a variable in its environment unless that is "", and returns it with the first line
// that it prints.
func start(t *testing.T, env string, args ...string) (*exec.Cmd, string) {
	t.Helper()
	c := exec.Command(program(t), args...)
	if env != "" {
		c.Env = append(os.Environ(), env)
	}
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
