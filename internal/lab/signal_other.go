//go:build !unix

package lab

import (
	"errors"
	"os"
)

// errSignal: this system does not have the signals of Unix.
var errSignal = errors.New("processes cannot be frozen here")

// KillSelf ends this process. It does not return.
func KillSelf() { os.Exit(9) }

// freeze is not possible here.
func freeze(*os.Process) error { return errSignal }

// thaw is not possible here.
func thaw(*os.Process) error { return errSignal }

// terminate kills a process: here it cannot be asked to shut down.
func terminate(p *os.Process) error { return p.Kill() }

// dump is not possible here.
func dump(*os.Process) error { return errSignal }

// Quit is not possible here.
func Quit(int) error { return errSignal }

// LimitMemory does nothing here.
func LimitMemory() {}
