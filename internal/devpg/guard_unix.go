//go:build unix

package devpg

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// guardScript runs a program and watches a pipe, the leash, whose other end only this process holds. Its arguments are the
// folder, and then the program with its arguments.
//
// A line on the leash: SIGINT, PostgreSQL's fast shutdown. A second one: SIGQUIT, its immediate shutdown. The end of the
// leash, which the kernel closes when this process dies for whatever reason: SIGQUIT, and then the folder is removed. SIGTERM
// comes first, since a program that the shell starts in the background ignores SIGQUIT until it installs a handler; postgres and
// initdb do, but a moment later. (A server that gets SIGTERM and then SIGQUIT ends immediately.)
//
// The lock is open as descriptor 3 in the guard and everything that it starts.
//
//go:embed guard.sh
var guardScript string

// leash keeps the guard and its program alive.
type leash struct {
	line *os.File // the write end of a pipe
}

// start starts a program as the account, under a guard.
func (r runner) start(program string, args ...string) (*guard, error) {
	hold, line, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	defer hold.Close()
	cmd := exec.Command("/bin/sh", append([]string{"-c", guardScript, "sqlq-guard", r.folder.path, program}, args...)...)
	cmd.Stdin = hold
	cmd.Stdout, cmd.Stderr = r.log, r.log
	cmd.ExtraFiles = []*os.File{r.folder.lock}
	cmd.Env = r.env
	apart(cmd)
	r.as.run(cmd)
	if err := cmd.Start(); err != nil {
		line.Close()
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	g := &guard{started: started{cmd: cmd}, leash: leash{line}}
	g.watch()
	return g, nil
}

// apart gives a program its own session: a Ctrl-C in the terminal does not reach it.
func apart(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

// ask asks for the fast shutdown. An error means that the guard has ended.
func (g *guard) ask() { _, _ = g.line.WriteString("stop\n") }

// force asks for the immediate shutdown, and releases the leash.
func (g *guard) force() { g.line.Close() }

// halt asks for the immediate shutdown, and keeps the leash, so that the folder stays.
func (g *guard) halt() { _, _ = g.line.WriteString("stop\nnow\n") }

// kill is for a server that ignores even SIGQUIT. The guard has not been waited for, so its process id, which is also the
// session's, has not been reused.
func (g *guard) kill() { _ = syscall.Kill(-g.cmd.Process.Pid, syscall.SIGKILL) }

// release is for a program that has ended.
func (g *guard) release() { g.line.Close() }

// crash kills the server and everything that it started, at once and without asking, and waits until the server has gone. The
// folder stays, because the leash is kept.
//
// The server is frozen first. Then it starts nothing more and reaps none of its children, so that every process id that ps
// lists is still theirs. (They are in their own sessions, and so cannot be killed as a group.)
func (g *guard) crash(pid int) error {
	select {
	case <-g.done:
		return nil // do not touch the process id: it may be another process's by now
	default:
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		if g.ended(10 * time.Second) {
			return nil // it was just ending
		}
		return fmt.Errorf("freeze the server: %w", err)
	}
	err := killChildren(pid)
	if killErr := syscall.Kill(pid, syscall.SIGKILL); killErr != nil { // whatever err says: it must not stay frozen
		err = errors.Join(err, fmt.Errorf("kill the server: %w", killErr))
	}
	if !g.ended(10 * time.Second) {
		err = errors.Join(err, fmt.Errorf("process %d was killed, but does not end", pid))
	}
	return err
}

// killChildren returns once all children of a frozen process are dead.
func killChildren(parent int) error {
	for late := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		children, err := childrenOf(parent)
		if err != nil || len(children) == 0 {
			return err
		}
		if time.Now().After(late) {
			return fmt.Errorf("processes %v were killed, but do not end", children)
		}
		for _, child := range children {
			if err := syscall.Kill(child, syscall.SIGKILL); err != nil {
				return fmt.Errorf("kill the server's process %d: %w", child, err)
			}
		}
	}
}

// childrenOf lists the living children of a process.
func childrenOf(parent int) ([]int, error) {
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=,stat=").Output()
	if err != nil {
		return nil, fmt.Errorf("list the server's processes: %w", err)
	}
	var children []int
	for line := range strings.Lines(string(out)) {
		var pid, ppid int
		var state string
		if _, err := fmt.Sscan(line, &pid, &ppid, &state); err != nil {
			return nil, fmt.Errorf("list the server's processes: ps printed %q", line)
		}
		if ppid == parent && !strings.HasPrefix(state, "Z") {
			children = append(children, pid)
		}
	}
	return children, nil
}

// keep guards a folder in which no server runs: a program that does nothing is started as the server would be, so that
// the death of this process still removes the folder.
func (r runner) keep() (*guard, error) { return r.start("sleep", "2147483647") }
