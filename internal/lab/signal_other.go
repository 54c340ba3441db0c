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

// Freeze is not possible here.
func Freeze(*os.Process) error { return errSignal }

// Thaw is not possible here.
func Thaw(*os.Process) error { return errSignal }

// Terminate kills a process: here it cannot be asked to shut down.
func Terminate(p *os.Process) error { return p.Kill() }

// Dump is not possible here.
func Dump(*os.Process) error { return errSignal }

// Quit is not possible here.
func Quit(int) error { return errSignal }

// LimitMemory does nothing here.
func LimitMemory() {}
