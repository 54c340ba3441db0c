package trial

import (
	"reflect"
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

// It finds what the guarantees by choice forbid, and lets pass what they allow.
func TestJudgeByChoice(t *testing.T) {
	find := func(queue string, do deed) key {
		k := firstKey(7)
		for deedOf(queue, k) != do {
			k++
		}
		return k
	}
	plainly, failing, sending := find(mostQueue, succeed), find(mostQueue, failEver), find(mostQueue, sendsOn)
	once := find(onceQueue, succeed)
	one := []failure{{attempts: 1}}
	for name, c := range map[string]struct {
		k       key
		queue   string
		faulty  bool
		found   accountant
		want    Result
		isWrong bool
	}{
		"handled":                {plainly, mostQueue, false, accountant{effects: map[where]int{{mostQueue, plainly}: 1}}, Result{Messages: 1, AtMostOnce: 1}, false},
		"twice":                  {plainly, mostQueue, true, accountant{effects: map[where]int{{mostQueue, plainly}: 2}}, Result{Messages: 1, AtMostOnce: 1, AtMostOnceTwice: 1}, true},
		"lost":                   {plainly, mostQueue, false, accountant{}, Result{Messages: 1, AtMostOnce: 1, AtMostOnceLost: 1, LostUnexplained: 1}, true},
		"lost by a fault":        {plainly, mostQueue, true, accountant{}, Result{Messages: 1, AtMostOnce: 1, AtMostOnceLost: 1}, false},
		"failed":                 {failing, mostQueue, false, accountant{effects: map[where]int{{mostQueue, failing}: 1}, failures: map[where][]failure{{mostQueue, failing}: one}}, Result{Messages: 1, AtMostOnce: 1, Failed: 1}, false},
		"failed twice":           {failing, mostQueue, true, accountant{failures: map[where][]failure{{mostQueue, failing}: append(one, one...)}}, Result{Messages: 1, AtMostOnce: 1, Failed: 2, Unaccounted: 1}, true},
		"failed and ought not":   {plainly, mostQueue, false, accountant{failures: map[where][]failure{{mostQueue, plainly}: one}}, Result{Messages: 1, AtMostOnce: 1, Failed: 1, AtMostOnceLost: 1, LostUnexplained: 1}, true},
		"sent on":                {sending, mostQueue, false, accountant{effects: map[where]int{{mostQueue, sending}: 1, {onwardQueue, sending}: 1}}, Result{Messages: 2, AtMostOnce: 1}, false},
		"what it sent is lost":   {sending, mostQueue, false, accountant{effects: map[where]int{{mostQueue, sending}: 1}}, Result{Messages: 1, AtMostOnce: 1, AtMostOnceLost: 1, LostUnexplained: 1}, true},
		"sent twice":             {once, onceQueue, false, accountant{effects: map[where]int{{onceQueue, once}: 1, {onwardQueue, once}: 1}}, Result{Messages: 2, SentTwice: 1}, false},
		"handled again, settled": {once, onceQueue, true, accountant{effects: map[where]int{{onceQueue, once}: 2, {onwardQueue, once}: 2}}, Result{Messages: 2, SentTwice: 1, SettledTwice: 1, DoubleEffects: 1}, true},
	} {
		a := c.found
		a.result, a.expected, a.trial = &Result{}, map[where]bool{}, &trial{faults: newFaults()}
		if c.faulty {
			a.trial.faults.struck("kill", "receiver-a#1", "killed")()
		}
		a.judge(&batch{First: c.k, N: 1, To: c.queue, acked: true})
		a.uninvited()
		if got := *a.result; !reflect.DeepEqual(got, c.want) || (len(got.Wrong()) > 0) != c.isWrong {
			t.Errorf("%s: got %+v\nwant %+v\nwrong: %q", name, got, c.want, got.Wrong())
		}
	}
}
