package trial

import (
	"testing"
	"time"
)

// The accountant must find what the library must not do.
func TestJudge(t *testing.T) {
	k := firstKey(7)
	for deedOf(plainQueue, k) != succeed || deedOf(exactQueue, k) != succeed {
		k++
	}
	failing := k
	for deedOf(plainQueue, failing) != failEver {
		failing++
	}
	failed := func(attempts int) []failure { return []failure{{attempts: attempts, at: time.Now()}} }
	plainly := where{plainQueue, k}
	for name, c := range map[string]struct {
		of    batch
		found accountant
		want  Result
	}{
		"handled":            {batch{First: k, N: 1, To: plainQueue, acked: true}, accountant{effects: map[where]int{plainly: 2}}, Result{Messages: 1}},
		"lost":               {batch{First: k, N: 1, To: plainQueue, acked: true}, accountant{}, Result{Messages: 1, Lost: 1}},
		"left":               {batch{First: k, N: 1, To: plainQueue, acked: true}, accountant{left: map[where]string{plainly: "delayed"}}, Result{Messages: 1, Unaccounted: 1}},
		"in two places":      {batch{First: k, N: 1, To: plainQueue, acked: true}, accountant{effects: map[where]int{plainly: 1}, failures: map[where][]failure{plainly: failed(6)}}, Result{Messages: 1, Failed: 1, Unaccounted: 1}},
		"unknown, nowhere":   {batch{First: k, N: 1, To: plainQueue}, accountant{}, Result{UnknownOutcomes: 1}},
		"unknown, stored":    {batch{First: k, N: 1, To: plainQueue}, accountant{effects: map[where]int{plainly: 1}}, Result{Messages: 1, UnknownOutcomes: 1, UnknownStored: 1}},
		"half of a batch":    {batch{First: k, N: 2, To: poisonQueue, Do: []deed{succeed, succeed}}, accountant{effects: map[where]int{{poisonQueue, k}: 1}}, Result{Messages: 2, Lost: 1, Neighbours: 2, NeighboursHandled: 1, UnknownOutcomes: 1, UnknownStored: 1}},
		"rolled back":        {batch{First: k, N: 1, To: plainQueue, How: "tx"}, accountant{effects: map[where]int{plainly: 1}}, Result{UnknownOutcomes: 1, Unaccounted: 1}},
		"undone commit":      {batch{First: k, N: 1, To: plainQueue, How: "tx", acked: true}, accountant{effects: map[where]int{plainly: 1}}, Result{Messages: 1, Lost: 1}},
		"twice in tx":        {batch{First: k, N: 1, To: exactQueue, acked: true}, accountant{effects: map[where]int{{exactQueue, k}: 2}}, Result{Messages: 1, DoubleEffects: 1}},
		"failed":             {batch{First: failing, N: 1, To: plainQueue, acked: true}, accountant{failures: map[where][]failure{{plainQueue, failing}: failed(6)}}, Result{Messages: 1, Failed: 1}},
		"failed too early":   {batch{First: failing, N: 1, To: plainQueue, acked: true}, accountant{failures: map[where][]failure{{plainQueue, failing}: failed(5)}}, Result{Messages: 1, Failed: 1, WrongAttempts: 1}},
		"killer":             {batch{First: k, N: 1, To: poisonQueue, Do: []deed{exits}, acked: true}, accountant{failures: map[where][]failure{{poisonQueue, k}: failed(3)}}, Result{Messages: 1, Failed: 1, Killers: 1, KillersFailed: 1}},
		"nobody sent it":     {batch{First: k + 1, N: 1, To: plainQueue}, accountant{effects: map[where]int{plainly: 1}}, Result{UnknownOutcomes: 1, Unaccounted: 1}},
		"succeeded, was not": {batch{First: failing, N: 1, To: plainQueue, acked: true}, accountant{effects: map[where]int{{plainQueue, failing}: 1}}, Result{Messages: 1, Unaccounted: 1}},
	} {
		a := c.found
		a.result, a.expected = &Result{}, map[where]bool{}
		a.judge(&c.of)
		a.uninvited()
		got := *a.result
		if got.Messages != c.want.Messages || got.Lost != c.want.Lost || got.Unaccounted != c.want.Unaccounted || got.DoubleEffects != c.want.DoubleEffects ||
			got.Failed != c.want.Failed || got.WrongAttempts != c.want.WrongAttempts || got.UnknownOutcomes != c.want.UnknownOutcomes || got.UnknownStored != c.want.UnknownStored ||
			got.Killers != c.want.Killers || got.KillersFailed != c.want.KillersFailed || got.Neighbours != c.want.Neighbours || got.NeighboursHandled != c.want.NeighboursHandled {
			t.Errorf("%s: got %+v\nwant %+v", name, got, c.want)
		}
	}
}
