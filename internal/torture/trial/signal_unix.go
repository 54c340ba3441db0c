//go:build unix

package trial

import (
	"os"
	"syscall"
)

func killSelf() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

func freeze(p *os.Process) error    { return p.Signal(syscall.SIGSTOP) }
func thaw(p *os.Process) error      { return p.Signal(syscall.SIGCONT) }
func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }
func dump(p *os.Process) error      { return p.Signal(syscall.SIGQUIT) }
func quit(pid int) error            { return syscall.Kill(pid, syscall.SIGQUIT) }

// limitMemory lets the process have no more memory than it has.
func limitMemory() {
	const little = 64 << 20 // less than the address space of any Go program
	_ = syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: little, Max: little})
}
