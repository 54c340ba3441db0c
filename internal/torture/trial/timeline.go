package trial

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// moment is a line of a timeline.
type moment struct {
	at   time.Time
	text string
}

// timeline tells the story of one message: its sending, its attempts, its effects, and the faults near them.
func (a *accountant) timeline(ctx context.Context, w where, why string) string {
	moments := a.sending(w)
	moments = append(moments, a.attempts(w)...)
	_ = a.each(ctx, func(row pgx.CollectableRow) error {
		var at time.Time
		var run, attempt int
		if err := row.Scan(&at, &run, &attempt); err != nil {
			return err
		}
		moments = append(moments, moment{a.here(at), fmt.Sprintf("effect of attempt %d in %s", attempt, a.trial.faults.nameOf(run))})
		return nil
	}, `SELECT at, run, attempt FROM effect WHERE queue = $1 AND k = $2 UNION ALL SELECT at, run, attempt FROM effect_tx WHERE queue = $1 AND k = $2`, w.queue, w.k)
	for _, f := range a.failures[w] {
		moments = append(moments, moment{f.at, fmt.Sprintf("failed after %d attempts: %s", f.attempts, f.message)})
	}
	if len(moments) == 0 {
		return fmt.Sprintf("message %d in queue %s: %s; nothing else is known of it\n", w.k, w.queue, why)
	}
	byTime := func(a, b moment) int { return a.at.Compare(b.at) }
	slices.SortFunc(moments, byTime)
	var faults []moment
	for _, i := range a.near(moments) {
		kind := i.kind
		if kind == "" {
			kind = "-"
		}
		faults = append(faults, moment{i.began, fmt.Sprintf("    [%s] %s: %s (for %v)", kind, i.on, i.text, i.ended.Sub(i.began).Round(time.Millisecond))})
	}
	moments = append(moments, faults...)
	slices.SortStableFunc(moments, byTime)
	var b strings.Builder
	fmt.Fprintf(&b, "message %d in queue %s (%s): %s\n", w.k, w.queue, deedOf(w.queue, w.k), why)
	for _, m := range moments {
		fmt.Fprintf(&b, "  %s %s\n", m.at.Local().Format("15:04:05.000"), m.text)
	}
	return b.String()
}

// near returns what happened within a second of any of the moments.
func (a *accountant) near(moments []moment) (found []incident) {
	type identity struct {
		on, text string
		at       time.Time
	}
	seen := map[identity]bool{}
	for _, m := range moments {
		for _, i := range a.trial.faults.within(m.at.Add(-time.Second), m.at.Add(time.Second)) {
			id := identity{i.on, i.text, i.began}
			if !seen[id] && len(found) < 150 {
				seen[id] = true
				found = append(found, i)
			}
		}
	}
	return found
}

func (a *accountant) sending(w where) (moments []moment) {
	a.trial.ledger.mu.Lock()
	defer a.trial.ledger.mu.Unlock()
	for _, b := range a.trial.ledger.batches {
		if w.k < b.First || w.k >= b.First+key(b.N) {
			continue
		}
		to := b.To
		if to == "" {
			to = "the subscribers"
		}
		moments = append(moments, moment{b.tried, fmt.Sprintf("%s sends %d messages from %d on to %s (%s, delay %v)", b.sender, b.N, b.First, to, b.How, b.Delay)})
		switch {
		case b.acked:
			moments = append(moments, moment{b.ended, "acknowledged"})
		case !b.ended.IsZero():
			moments = append(moments, moment{b.ended, "not acknowledged: " + b.why})
		}
	}
	return moments
}

// attempts reads what handlers noted of a message.
func (a *accountant) attempts(w where) (moments []moment) {
	files, _ := filepath.Glob(filepath.Join(a.trial.dir, "trace-*"))
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		run, _ := strconv.Atoi(strings.TrimPrefix(filepath.Base(name), "trace-"))
		mark := fmt.Sprintf(" %s %d ", w.queue, w.k)
		for lines := bufio.NewScanner(f); lines.Scan(); {
			at, rest, ok := strings.Cut(lines.Text(), mark)
			if !ok {
				continue
			}
			ms, _ := strconv.ParseInt(at, 10, 64)
			moments = append(moments, moment{time.UnixMilli(ms), "handler in " + a.trial.faults.nameOf(run) + ", attempt " + rest})
		}
		f.Close()
	}
	return moments
}
