//go:build unix

package trial_test

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/sqlq/sqlq/internal/torture/trial"
)

func TestMain(m *testing.M) {
	trial.BeChild() // a process that a trial started does not come back from here
	os.Exit(m.Run())
}

// A tiny trial of each kind: it shows that the trial itself works, not much about the library.
func TestTrials(t *testing.T) {
	for _, scenario := range []string{trial.Calm, trial.Mixed} {
		t.Run(scenario, func(t *testing.T) {
			t.Parallel()
			r, err := trial.Run(t.Context(), trial.Options{Scenario: scenario, Duration: 2 * time.Second, Seed: 1, Rate: 300,
				Command: func() *exec.Cmd { return exec.Command(os.Args[0]) }, Log: t.Output()})
			if err != nil {
				t.Fatal(err)
			}
			if wrong := r.Wrong(); len(wrong) > 0 {
				t.Errorf("%q\n%s", wrong, r.Timeline)
			}
			if scenario == trial.Mixed && len(r.Faults) == 0 {
				t.Error("no fault was counted")
			}
			if scenario == trial.Calm && r.Repeated > 0 {
				t.Errorf("%d repeated without any fault", r.Repeated)
			}
		})
	}
}
