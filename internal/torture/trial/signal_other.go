//go:build !unix

package trial

import (
	"errors"
	"os"
)

// errSignal: the trial needs signals that this system does not have.
var errSignal = errors.New("processes cannot be frozen here")

func killSelf() { os.Exit(9) }

func freeze(*os.Process) error      { return errSignal }
func thaw(*os.Process) error        { return errSignal }
func terminate(p *os.Process) error { return p.Kill() }
func dump(*os.Process) error        { return errSignal }
func quit(int) error                { return errSignal }
func limitMemory()                  {}
