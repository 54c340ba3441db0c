//go:build unix

package lab

import (
	"os"
	"syscall"
)

// KillSelf kills this process as the system does when memory runs out. It does not return.
func KillSelf() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// freeze stops a process where it is.
func freeze(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

// thaw resumes a frozen process.
func thaw(p *os.Process) error { return p.Signal(syscall.SIGCONT) }

// terminate asks a process to shut down.
func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }

// dump makes a Go program log the stacks of all its goroutines, which ends it.
func dump(p *os.Process) error { return p.Signal(syscall.SIGQUIT) }

// Quit sends SIGQUIT, which makes a PostgreSQL server end at once, without a checkpoint.
func Quit(pid int) error { return syscall.Kill(pid, syscall.SIGQUIT) }

// LimitMemory keeps the process from getting more memory than it has.
func LimitMemory() {
	const little = 64 << 20 // less than the address space of any Go program
	_ = syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: little, Max: little})
}
