package main

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// guardScript runs a program that does not outlive this one. Its arguments are a folder, and then the program with its
// arguments. When its standard input ends, which the kernel ensures however this process dies, it terminates its whole
// process group, then kills it, and removes the folder.
//
//go:embed guard.sh
var guardScript string

// process is a program under the guard, in a session of its own: a Ctrl-C in the terminal does not reach it.
type process struct {
	cmd   *exec.Cmd
	leash *os.File
	ended chan struct{}
	log   string // the file with its output
}

// guarded starts a program that keeps its files in folder. log is a file, which may be in it.
func guarded(folder, log string, env []string, program string, args ...string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	hold, leash, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer hold.Close()
	cmd := exec.Command("/bin/sh", append([]string{"-c", guardScript, "sqlq-peers-guard", folder, program}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = hold, out, out
	cmd.Env = env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		leash.Close()
		return nil, err
	}
	p := &process{cmd: cmd, leash: leash, ended: make(chan struct{}), log: log}
	go func() {
		defer close(p.ended)
		_ = cmd.Wait() // a signal ends it
	}()
	return p, nil
}

// stop ends the program and returns when it and its folder have gone.
func (p *process) stop() error {
	p.leash.Close()
	select {
	case <-p.ended:
		return nil
	case <-time.After(30 * time.Second):
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it was not waited for yet, so the id is still its own
		<-p.ended
		return fmt.Errorf("%s did not end by itself", p.cmd.Args[5])
	}
}

// said returns the end of the program's output, for an error.
func (p *process) said() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return ""
	}
	return "\n" + string(text[max(0, len(text)-2000):])
}
