//go:build !unix

package lab

import (
	"errors"
	"os"
)

// errSignal is returned because this system lacks the signals of Unix.
var errSignal = errors.New("processes cannot be frozen here")

// KillSelf kills this process. It does not return.
func KillSelf() { os.Exit(9) }

// freeze is not possible here.
func freeze(*os.Process) error { return errSignal }

// thaw is not possible here.
func thaw(*os.Process) error { return errSignal }

// terminate kills a process, which cannot be asked to shut down here.
func terminate(p *os.Process) error { return p.Kill() }

// dump is not possible here.
func dump(*os.Process) error { return errSignal }

// Quit is not possible here.
func Quit(int) error { return errSignal }

// LimitMemory does nothing here.
func LimitMemory() {}
