// Package failover kills a primary under load and promotes its standby, and accounts for every message.
//
// The servers are real: a primary, and a streaming standby that is synchronous in a first trial and asynchronous in a
// second. The senders and receivers are processes of their own, which know one URL with both hosts and
// target_session_attrs=read-write, and nobody tells them what happened.
//
// What is checked, see account.go: with a synchronous standby no acknowledged message is lost. With an asynchronous one only
// those are that the standby never had; a journal, which a trigger writes in the sender's transaction, says which. No
// HandleTx handler takes effect twice. Work goes on within seconds of the promotion.
package failover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"

	"github.com/sqlq/sqlq/internal/devpg"
)

// Options says how large the scenario is. The zero value is a run of some 20 seconds.
type Options struct {
	// Child returns a command that runs this program, whose main calls BeChild first. Required.
	Child func() *exec.Cmd

	Senders, Receivers int           // processes; default 2 and 3
	Rate               int           // messages a second from all senders together; default 2000
	Load               time.Duration // before the crash, and again after the recovery; default 3 s
	Outage             time.Duration // from the crash to the promotion; default 1 s, negative: none
	// Lag is for how long, before the crash, an asynchronous standby gets nothing any more. Default 300 ms, so that there
	// is something to lose; negative: it gets what it can.
	Lag time.Duration

	Server devpg.Options // of the primary; Durable is set
	Log    io.Writer     // what happens, line by line. Default: nowhere
}

func (o Options) withDefaults() Options {
	if o.Senders == 0 {
		o.Senders = 2
	}
	if o.Receivers == 0 {
		o.Receivers = 3
	}
	if o.Rate == 0 {
		o.Rate = 2000
	}
	for _, d := range []struct {
		value *time.Duration
		usual time.Duration
	}{{&o.Load, 3 * time.Second}, {&o.Outage, time.Second}, {&o.Lag, 300 * time.Millisecond}} {
		if *d.value == 0 {
			*d.value = d.usual
		}
		*d.value = max(*d.value, 0)
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	o.Server.Durable = true // a crash is survived only with full_page_writes, and nothing is proved without fsync
	return o
}

// Result is what both trials together have shown.
type Result struct {
	Scenario string `json:"scenario"`
	Server   string `json:"server"`
	// Lost counts acknowledged messages that are nowhere although the promoted standby had them, or should have had them.
	Lost            int     `json:"lost"`
	LostAsync       int     `json:"lost_async"`       // nowhere, and never at the asynchronous standby
	NeverReplicated int     `json:"never_replicated"` // all acknowledged that the asynchronous standby never had, handled or not
	DoubleEffects   int     `json:"double_effects"`
	Unaccounted     int     `json:"unaccounted"` // in two places, or from nowhere
	RecoverySeconds float64 `json:"recovery_seconds"`
	Messages        int     `json:"messages"`
	SequencesBack   int     `json:"sequences_went_back"`
	Synchronous     Account `json:"synchronous"`
	Asynchronous    Account `json:"asynchronous"`
}

// RecoverWithin is how long after the promotion work may stand still.
const RecoverWithin = 10 * time.Second

// Err says what was promised and not kept; nil: nothing.
func (r Result) Err() error {
	var errs []error
	check := func(kept bool, format string, args ...any) {
		if !kept {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(r.Lost == 0, "%d acknowledged messages are lost", r.Lost)
	check(r.Synchronous.NeverReplicated == 0, "the synchronous standby never had %d acknowledged messages", r.Synchronous.NeverReplicated)
	check(r.DoubleEffects == 0, "%d HandleTx handlers took effect twice", r.DoubleEffects)
	check(r.Unaccounted == 0, "%d messages are in two places, or come from nowhere", r.Unaccounted)
	for _, a := range []Account{r.Synchronous, r.Asynchronous} {
		check(a.recovered && a.RecoverySeconds <= RecoverWithin.Seconds(), "%s standby: work went on %.1f s after the promotion, if at all", a.Standby, a.RecoverySeconds)
		check(a.ReceiversBack == a.Receivers, "%s standby: %d of %d receivers came back", a.Standby, a.ReceiversBack, a.Receivers)
		check(a.SlowestSender <= RecoverWithin.Seconds(), "%s standby: a sender needed %.1f s", a.Standby, a.SlowestSender)
	}
	return errors.Join(errs...)
}

// Run runs both trials. The result is worth reading only if the error is nil; Result.Err gives the verdict.
func Run(ctx context.Context, o Options) (Result, error) {
	o = o.withDefaults()
	r := Result{Scenario: "failover"}
	for _, trial := range []struct {
		standby devpg.StandbyOptions
		account *Account
	}{
		{devpg.StandbyOptions{Synchronous: true}, &r.Synchronous},
		{devpg.StandbyOptions{}, &r.Asynchronous},
	} {
		a, err := try(ctx, o, trial.standby)
		if err != nil {
			return r, fmt.Errorf("failover to %s standby: %w", kindOf(trial.standby), err)
		}
		*trial.account = a
		r.Server = a.server
		r.Lost += a.Lost
		r.LostAsync += a.LostAsync
		r.NeverReplicated += a.NeverReplicated
		r.DoubleEffects += a.DoubleEffects
		r.Unaccounted += a.Unaccounted
		r.Messages += a.Messages
		r.SequencesBack += a.SequencesBack
		r.RecoverySeconds = max(r.RecoverySeconds, a.RecoverySeconds)
	}
	return r, nil
}

func kindOf(o devpg.StandbyOptions) string {
	if o.Synchronous {
		return "synchronous"
	}
	return "asynchronous"
}
