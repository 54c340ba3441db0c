package devpg

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

// leash is a job object, which contains the program and everything that it starts. The system kills them when the last handle
// of the object is closed, so also when this process dies for whatever reason.
type leash struct {
	job  windows.Handle
	ctl  string // pg_ctl
	data string
}

// start starts a program under a guard.
func (r runner) start(program string, args ...string) (*guard, error) {
	cmd := exec.Command(program, args...)
	cmd.Dir = r.folder.path
	cmd.Stdout, cmd.Stderr = r.log, r.log
	cmd.Env = r.env
	apart(cmd)
	job, err := newJob()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	if err := cmd.Start(); err != nil {
		windows.CloseHandle(job)
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	g := &guard{started: started{cmd: cmd}, leash: leash{job, filepath.Join(filepath.Dir(program), "pg_ctl.exe"), r.folder.data()}}
	err = assign(job, cmd.Process.Pid)
	g.watch()
	if err != nil {
		_ = cmd.Process.Kill()
		<-g.done
		g.release()
		return nil, fmt.Errorf("start %s: tie it to this process: %w", program, err)
	}
	return g, nil
}

// apart gives a program its own process group: a Ctrl-C in the terminal does not reach it.
func apart(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP}
}

func newJob() (windows.Handle, error) {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return 0, err
	}
	var limits windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION
	limits.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
	if _, err := windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&limits)), uint32(unsafe.Sizeof(limits))); err != nil {
		windows.CloseHandle(job)
		return 0, err
	}
	return job, nil
}

func assign(job windows.Handle, pid int) error {
	process, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false, uint32(pid))
	if err != nil {
		return err
	}
	defer windows.CloseHandle(process)
	return windows.AssignProcessToJobObject(job, process)
}

// ask asks for the fast shutdown, as SIGINT does elsewhere. If it fails, force follows.
func (g *guard) ask() { _ = exec.Command(g.ctl, "stop", "-D", g.data, "-m", "fast", "-W", "-s").Run() }

func (g *guard) force() { _ = windows.TerminateJobObject(g.job, 1) }

// halt ends it immediately. (Nothing here removes the folder.)
func (g *guard) halt() { g.force() }

func (g *guard) kill() { g.force() }

// release is for a program that has ended.
func (g *guard) release() {
	if g.job != 0 {
		windows.CloseHandle(g.job)
		g.job = 0
	}
}

// crash kills the server and everything that it started. The folder stays.
func (g *guard) crash(int) error {
	g.end()
	return nil
}

// keep has nothing to do: here a later sweep removes the folder, not a guard.
func (runner) keep() (*guard, error) { return nil, nil }
