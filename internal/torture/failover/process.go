package failover

import (
	"context"
	"fmt"
	"os/exec"
	"sync"
	"time"

	"github.com/sqlq/sqlq/internal/lab"
)

// process is a sending or receiving process, seen from the one that accounts.
type process struct {
	*lab.Process[told]

	mu   sync.Mutex
	said []told
}

func start(cmd *exec.Cmd, s spec) (*process, error) {
	p := &process{}
	p.Process = lab.NewProcess(lab.Command[told]{Cmd: cmd, Kind: kind, Spec: s, Said: p.hear})
	return p, p.Start()
}

func (p *process) hear(t told) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.said = append(p.said, t)
}

// all is what the process has said so far: all of it once it has ended.
func (p *process) all() []told {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said
}

// kill ends the process whatever it does.
func (p *process) kill() {
	_ = p.Kill() // it may have ended
	<-p.Ended()
}

// dismiss has processes shut down cleanly.
func dismiss(ctx context.Context, all []*process) error {
	for _, p := range all {
		p.Dismiss()
	}
	late := time.NewTimer(time.Minute)
	defer late.Stop()
	for _, p := range all {
		select {
		case <-p.Ended():
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-late.C:
			return fmt.Errorf("process %d does not end", p.PID())
		}
		if err := p.Err(); err != nil {
			return err
		}
	}
	return nil
}
