//go:build unix

package lab

import (
	"os"
	"syscall"
)

// KillSelf ends this process as the system does when memory is short. It does not return.
func KillSelf() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// freeze stops a process where it is.
func freeze(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

// thaw has a frozen process go on.
func thaw(p *os.Process) error { return p.Signal(syscall.SIGCONT) }

// terminate asks a process to shut down.
func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }

// dump has a Go program log the stacks of all its goroutines, which ends it.
func dump(p *os.Process) error { return p.Signal(syscall.SIGQUIT) }

// Quit sends SIGQUIT, at which a PostgreSQL server ends at once and without a checkpoint.
func Quit(pid int) error { return syscall.Kill(pid, syscall.SIGQUIT) }

// LimitMemory lets the process have no more memory than it has.
func LimitMemory() {
	const little = 64 << 20 // less than the address space of any Go program
	_ = syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: little, Max: little})
}
