package trial

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/sqlq/sqlq/internal/lab"
)

// processFaults kills, freezes and restarts processes.
type processFaults struct{ *trial }

func (t processFaults) lane() lane {
	on := func(role string, strike func(ctx context.Context, r *rand.Rand, kind string, p *post) bool) func(context.Context, *rand.Rand, string) bool {
		return func(ctx context.Context, r *rand.Rand, kind string) bool {
			posts := t.crew.of(role)
			return strike(ctx, r, kind, posts[r.IntN(len(posts))])
		}
	}
	return lane{name: "processes", shortest: 500 * time.Millisecond, pause: 2 * time.Second, faults: []fault{
		{"kill_receiver", on(receiverRole, t.killPost)}, {"freeze_receiver", on(receiverRole, t.freezePost)}, {"restart_receiver", on(receiverRole, t.restartPost)},
		{"kill_sender", on(senderRole, t.killPost)}, {"freeze_sender", on(senderRole, t.freezePost)}, {"restart_sender", on(senderRole, t.restartPost)},
		{"leader_ends", t.endLeader},
	}}
}

// occupant names the process of a post.
func (p *post) occupant() (name string) {
	p.with(func(pr *process) bool { name = pr.name(); return true })
	return name
}

func (t processFaults) killPost(_ context.Context, _ *rand.Rand, kind string, p *post) bool {
	name := p.occupant()
	if name == "" || !p.kill() {
		return false
	}
	t.faults.struck(kind, name, "SIGKILL")()
	return true
}

func (t processFaults) freezePost(ctx context.Context, r *rand.Rand, kind string, p *post) bool {
	name := p.occupant()
	x := r.Float64()
	d := time.Second + time.Duration(19*x*x*x*float64(time.Second)) // some are long
	thaw, ok := p.freeze()
	if name == "" || !ok {
		return false
	}
	over := t.faults.struck(kind, name, "SIGSTOP for %v", d.Round(time.Millisecond))
	t.lasting(func() {
		_ = lab.Sleep(ctx, d)
		thaw()
		over()
	})
	return true
}

func (t processFaults) restartPost(_ context.Context, _ *rand.Rand, kind string, p *post) bool {
	name := p.occupant()
	if name == "" || !p.stop(false) {
		return false
	}
	t.faults.struck(kind, name, "SIGTERM")()
	return true
}

// endLeader asks the process that leads to end, as a rolling deployment does.
func (t processFaults) endLeader(ctx context.Context, _ *rand.Rand, kind string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var pid int
	// Whoever leads holds lock 0 of the table of instances, and in the same session the lock of its process.
	err := t.site.admin.QueryRow(ctx, `
		SELECT i.pid FROM pg_locks lead JOIN pg_locks alive ON alive.pid = lead.pid AND alive.classid = lead.classid AND alive.objid <> 0
		JOIN sqlq.instance i ON coalesce(i.process, i.id) = alive.objid::bigint
		WHERE lead.locktype = 'advisory' AND lead.granted AND alive.locktype = 'advisory' AND lead.objid = 0
			AND lead.classid = ('sqlq.instance'::regclass::oid::bigint - 2147483648)::int::bit(32)::bigint::oid
		LIMIT 1`).Scan(&pid)
	if err != nil {
		return false
	}
	for _, p := range t.crew.of(receiverRole, poisonRole) {
		var name string
		p.with(func(pr *process) bool {
			if pr.PID() == pid {
				name = pr.name()
			}
			return true
		})
		if name != "" && p.stop(false) {
			t.faults.struck(kind, name, "SIGTERM, while it leads")()
			return true
		}
	}
	return false
}

// hung ends a process that says that a handler of it hangs, as whoever watches over processes would: most often by force,
// which counts as an attempt of the message; else in order, which hands the message to the next one.
func (t *trial) hung(pr *process, k key) {
	t.faults.happened(pr.name(), "message %d hangs", k)
	t.lasting(func() {
		time.Sleep(300 * time.Millisecond)
		if mix(uint64(k)+uint64(pr.run))%4 == 0 && pr.post.stop(true) {
			t.faults.happened(pr.name(), "SIGTERM, because it hangs")
			return
		}
		_ = pr.Kill()
		t.faults.happened(pr.name(), "SIGKILL, because it hangs")
	})
}
