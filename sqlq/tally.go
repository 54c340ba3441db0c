package sqlq

// tally counts failures by group, of any number of groups in bounded memory: where there is no room for another group every count goes down
// by one, so that what is left is a group's failures less at most those of so many others.
type tally struct {
	counts map[string]int
}

// mostGroups is how many groups are counted at a time. A broken service fails in fewer ways.
const mostGroups = 8

// add counts a failure, and returns how many its group has.
func (t *tally) add(group string) int {
	if t.counts == nil {
		t.counts = map[string]int{}
	}
	if t.counts[group] == 0 && len(t.counts) >= mostGroups {
		for g := range t.counts {
			if t.counts[g]--; t.counts[g] == 0 {
				delete(t.counts, g)
			}
		}
		return 0
	}
	t.counts[group]++
	return t.counts[group]
}

func (t *tally) clear() { clear(t.counts) }
