//go:build unix

package devpg

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// childServer is what the child process reports about its server.
type childServer struct {
	Folder, URL string
	PID         int
	Container   string // its name; then the process id is the client's
}

// child is the test binary as a process that starts a server and never stops it.
func child() {
	o, err := TestOptions()
	if err == nil {
		var s *Server
		o.InMemory = false
		if s, err = Start(context.Background(), o); err == nil {
			err = childDoes(s, os.Getenv("DEVPG_TEST_DO"))
		}
		if err == nil {
			report := childServer{URL: s.URL(""), PID: s.PID()}
			if s.box != nil {
				report.Container, report.PID = s.box.name, s.box.cmd.Process.Pid
			} else {
				report.Folder = s.folder.path
			}
			err = json.NewEncoder(os.Stdout).Encode(report)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {} // until it is killed
}

// childDoes is what a child does with its server before it waits.
func childDoes(s *Server, what string) error {
	switch what {
	case "crash":
		return s.Crash(context.Background())
	case "restart":
		return s.Restart(context.Background())
	case "standby":
		_, err := s.Standby(context.Background(), StandbyOptions{})
		return err
	}
	return nil
}

// startChild starts a child with a server, and returns the child and a channel that is closed when the last process of
// the server has ended.
func startChild(t *testing.T) (*exec.Cmd, childServer, <-chan struct{}) {
	t.Helper()
	cmd, s := runChild(t)
	lock, err := os.Open(filepath.Join(s.Folder, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	free := make(chan struct{})
	go func() { // ends with the server
		defer lock.Close()
		defer close(free)
		for syscall.Flock(int(lock.Fd()), syscall.LOCK_EX) == syscall.EINTR {
		}
	}()
	return cmd, s, free
}

// runChild starts a child with a server.
func runChild(t *testing.T) (*exec.Cmd, childServer) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "DEVPG_TEST_CHILD=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) // errors mean that it has ended
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var s childServer
	if err := json.Unmarshal(line, &s); err != nil {
		t.Fatal(err)
	}
	if answers(s.URL) == (os.Getenv("DEVPG_TEST_DO") == "crash") {
		t.Fatal("the child's server is not as it should be")
	}
	return cmd, s
}

func await(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(time.Minute):
		t.Fatal("waited a minute for " + what)
	}
}

func TestParentKilled(t *testing.T) {
	root := tempDir(t)
	cmd, s, free := startChild(t)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	await(t, "the server to go when its parent is killed", free)
	if !isGone(s.PID) {
		t.Error("the server survived its parent")
	}
	checkEmpty(t, root)
}

// If the guard is killed too, the server still ends. The folder stays, and the next start removes it, but not the folder
// of a running server.
func TestParentAndGuardKilled(t *testing.T) {
	root := tempDir(t)
	running := start(t)
	cmd, s, free := startChild(t)
	var guard int
	out, err := exec.Command("ps", "-o", "ppid=", "-p", fmt.Sprint(s.PID)).Output()
	if _, scanErr := fmt.Sscan(string(out), &guard); err != nil || scanErr != nil || guard <= 1 || guard == cmd.Process.Pid {
		t.Fatalf("the server's guard is %q, %v", out, err)
	}
	if err := syscall.Kill(guard, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !answers(s.URL) {
		t.Error("the server went with its guard")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	await(t, "the server to go when its parent and its guard are killed", free)
	if answers(s.URL) {
		t.Error("the server survived its parent and its guard")
	}
	if _, err := os.Stat(s.Folder); err != nil {
		t.Fatalf("the folder is gone, but who removed it? %v", err)
	}
	third := start(t)
	if _, err := os.Stat(s.Folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the dead server's folder was not swept: %v", err)
	}
	if !answers(running.URL("")) || !answers(third.URL("")) {
		t.Error("a running server was swept")
	}
	if err := errors.Join(running.Stop(), third.Stop()); err != nil {
		t.Error(err)
	}
	checkEmpty(t, root)
}

// The guard removes the folder even if its program ends as soon as it is asked to.
func TestGuardOfAProgramThatEndsAtOnce(t *testing.T) {
	for range 150 {
		path := t.TempDir()
		if err := os.Mkdir(filepath.Join(path, "data"), 0o777); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", guardScript, "sqlq-guard", path, "sleep", "100")
		leash, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		leash.Close()
		_ = cmd.Wait() // the program was killed
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("the folder was left behind: %v", err)
		}
	}
}
