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

// Freeze stops a process where it is.
func Freeze(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

// Thaw has a frozen process go on.
func Thaw(p *os.Process) error { return p.Signal(syscall.SIGCONT) }

// Terminate asks a process to shut down.
func Terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }

// Dump has a Go program log the stacks of all its goroutines, which ends it.
func Dump(p *os.Process) error { return p.Signal(syscall.SIGQUIT) }

// Quit sends SIGQUIT, at which a PostgreSQL server ends at once and without a checkpoint.
func Quit(pid int) error { return syscall.Kill(pid, syscall.SIGQUIT) }

// LimitMemory lets the process have no more memory than it has.
func LimitMemory() {
	const little = 64 << 20 // less than the address space of any Go program
	_ = syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: little, Max: little})
}
