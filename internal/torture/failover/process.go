package failover

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// process is a sending or receiving process, seen from the one that accounts.
type process struct {
	cmd   *exec.Cmd
	input io.WriteCloser
	ended chan struct{} // it has said its last

	mu        sync.Mutex
	said      []told
	log       strings.Builder // its standard error
	dismissed bool
	err       error
}

func start(cmd *exec.Cmd, s spec) (*process, error) {
	p := &process{cmd: cmd, ended: make(chan struct{})}
	cmd.Env = append(cmd.Environ(), childVariable+"=1")
	cmd.Stderr = logOf{p}
	var err error
	if p.input, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a process: %w", err)
	}
	go p.listen(output)
	return p, json.NewEncoder(p.input).Encode(s)
}

// listen reads what the process says until it ends.
func (p *process) listen(output io.Reader) {
	defer close(p.ended)
	var failed error
	for lines := bufio.NewScanner(output); lines.Scan(); {
		var t told
		if err := json.Unmarshal(lines.Bytes(), &t); err != nil {
			failed = fmt.Errorf("it said %q", lines.Text())
			continue
		}
		p.mu.Lock()
		p.said = append(p.said, t)
		p.mu.Unlock()
	}
	failed = errors.Join(failed, p.cmd.Wait())
	p.mu.Lock()
	defer p.mu.Unlock()
	if failed == nil && !p.dismissed {
		failed = errors.New("it ended unasked")
	}
	if failed != nil {
		p.err = fmt.Errorf("process %d: %w\n%s", p.cmd.Process.Pid, failed, p.log.String())
	}
}

// logOf collects the beginning of what a process logs.
type logOf struct{ p *process }

func (w logOf) Write(b []byte) (int, error) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	if w.p.log.Len() < 64<<10 {
		w.p.log.Write(b)
	}
	return len(b), nil
}

// failure says why the process has ended; nil if it has not, or was asked to and did so in order.
func (p *process) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// all returns what the process has said, once it has ended.
func (p *process) all() []told {
	<-p.ended
	return p.said
}

// kill ends the process whatever it does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// dismiss has processes end in order.
func dismiss(ctx context.Context, all []*process) error {
	for _, p := range all {
		p.mu.Lock()
		p.dismissed = true
		p.mu.Unlock()
		_ = p.input.Close() // a process that has ended says so below
	}
	late := time.NewTimer(time.Minute)
	defer late.Stop()
	for _, p := range all {
		select {
		case <-p.ended:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-late.C:
			return fmt.Errorf("process %d does not end", p.cmd.Process.Pid)
		}
		if err := p.failure(); err != nil {
			return err
		}
	}
	return nil
}
