package trial

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/sqlq/sqlq/internal/lab"
)

// networkFaults troubles connections that go through a proxy.
type networkFaults struct{ *trial }

func (t networkFaults) lane() lane {
	return lane{name: "network", shortest: 200 * time.Millisecond, pause: 1500 * time.Millisecond, faults: []fault{
		{"net_delay", t.delayNetwork}, {"net_cut", t.cutConnection}, {"net_cut_all", t.cutAll}, {"net_black_hole", t.blackHole},
		{"net_commit_hang", t.hangAt(lab.OnCommit)}, {"net_commit_hang", t.hangAt(lab.OnCommit)}, {"net_request_hang", t.hangAt(lab.OnRequest)},
	}}
}

func (t networkFaults) delayNetwork(ctx context.Context, r *rand.Rand, kind string) bool {
	p := t.site.proxies[r.IntN(len(t.site.proxies))]
	d, lasts := between(r, 2*time.Millisecond, 150*time.Millisecond), between(r, 500*time.Millisecond, 3*time.Second)
	p.Slow(d)
	over := t.faults.struck(kind, everybody, "each piece %v, for %v", d, lasts)
	t.lasting(func() {
		_ = lab.Sleep(ctx, lasts)
		p.Slow(0)
		over()
	})
	return true
}

func (t networkFaults) cutConnection(_ context.Context, r *rand.Rand, kind string) bool {
	c, ok := t.site.proxied(r)
	if ok {
		c.Cut()
		t.faults.struck(kind, everybody, "a connection")()
	}
	return ok
}

func (t networkFaults) cutAll(_ context.Context, r *rand.Rand, kind string) bool {
	all := t.site.proxies[r.IntN(len(t.site.proxies))].Links()
	for _, c := range all {
		c.Cut()
	}
	if len(all) > 0 {
		t.faults.struck(kind, everybody, "all %d connections of a proxy", len(all))()
	}
	return len(all) > 0
}

// blackHole swallows what goes over some connections; then they are cut, or everything arrives late.
func (t networkFaults) blackHole(ctx context.Context, r *rand.Rand, kind string) bool {
	all := t.site.proxies[r.IntN(len(t.site.proxies))].Links()
	if len(all) == 0 {
		return false
	}
	if r.IntN(2) == 0 {
		all = all[:1]
	}
	for _, c := range all {
		c.Swallow()
	}
	t.endHole(ctx, r, kind, all)
	return true
}

func (t networkFaults) endHole(ctx context.Context, r *rand.Rand, kind string, all []*lab.Link) {
	x := r.Float64()
	d, cut := 200*time.Millisecond+time.Duration(10*x*x*float64(time.Second)), r.IntN(2) == 0
	how := "then late"
	if cut {
		how = "then cut"
	}
	over := t.faults.struck(kind, everybody, "%d connections for %v, %s", len(all), d.Round(time.Millisecond), how)
	t.lasting(func() {
		_ = lab.Sleep(ctx, d)
		for _, c := range all {
			if cut {
				c.Cut()
			}
			c.LetGo()
		}
		over()
	})
}

// hangAt has a connection hang at its next commit, or its next request.
func (t networkFaults) hangAt(at lab.Trap) func(context.Context, *rand.Rand, string) bool {
	return func(ctx context.Context, r *rand.Rand, kind string) bool {
		c, ok := t.site.proxied(r)
		if !ok {
			return false
		}
		sprung := make(chan struct{}, 1)
		c.Set(at, func() { sprung <- struct{}{} })
		timer := time.NewTimer(300 * time.Millisecond)
		defer timer.Stop()
		select {
		case <-sprung:
			t.endHole(ctx, r, kind, []*lab.Link{c})
			return true
		case <-c.Ended():
		case <-timer.C:
		}
		c.LetGo()
		return false
	}
}
