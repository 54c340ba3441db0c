package sqlq

import (
	"errors"
	"log/slog"
	"strings"
	"time"
	"unicode"
)

// GiveBack returns an error with which a handler gives its message back: not now, and not the message's fault. The message comes back
// after that time, and the attempt does not count, neither for the RetryPolicy nor for the Breaker. What the handler has sent, and in
// HandleTx what it has written, is undone as after any error. Meanwhile the message waits among the delayed ones, and
// sqlq delayed ls shows the reason; or, with a time of 0, it is free at once for whoever fetches it, except that a process leaves
// a message that one of its own handlers has just given back to others for a tenth of a second, if it holds it in its queue.
//
// A time of less than 0 is 0, one of more than 100 years is 100 years. Of the reason 8 KiB are kept, on one line. Nothing bounds how often a
// message is given back, but its time to live. If the error is wrapped in Unrecoverable the message fails; RetryAfter around it
// changes nothing. In an endpoint with AtMostOnce the message cannot come back, because it has left its queue for good: it goes to the
// error table, which says so.
func GiveBack(after time.Duration, reason string) error {
	return &givenBack{after: between0And(maxDelay, after), reason: clip(oneLine(reason[:min(len(reason), 2*maxErrorText)]), maxErrorText)}
}

type givenBack struct {
	after  time.Duration
	reason string
}

// Error implements error.
func (e *givenBack) Error() string {
	if e.reason == "" {
		return "given back by its handler"
	}
	return "given back by its handler: " + e.reason
}

// oneLine replaces what would move the cursor of a terminal by spaces.
func oneLine(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s))
}

// givenBackBy returns the GiveBack in an error; nil if there is none. A handler that has left the connection in use has failed
// whatever it says: it must not come back for ever.
func givenBackBy(err error) *givenBack {
	var back *givenBack
	if err == nil || !errors.As(err, &back) || errors.Is(err, ErrLeftOpen) {
		return nil
	}
	return back
}

// leaveToOthers is how long a process leaves a held message alone that its handler has given back at once: others are to have it, and
// one that nobody wants is not to be fetched as fast as it can be.
const leaveToOthers = 100 * time.Millisecond

// takeBack makes the attempt of a delivery that waits one that does not count. If the message is to come back at once it goes back as it
// came, unless there is something to be stored: an immediate retry that has failed before, or an attempt that was counted beforehand.
func (h *handlers) takeBack(d *delivery, again bool) {
	before := int32(d.made() - 1)
	if d.outcome.delay == 0 && before == d.before && !d.crashes && !again {
		d.outcome = outcome{verdict: giveBack, chosen: true}
	}
	d.before = before
	h.client.config.messages.say(d.ctx, slog.LevelInfo, "sqlq: a message was given back without counting the attempt", h.endpoint.Name, d.stored.messageType, d.err, "message", d.stored.id, "for", d.outcome.delay)
}

// leaveGivenBack leaves held messages alone for a while that handlers have given back at once, and that the transaction frees.
func (in *instance) leaveGivenBack(ds []*delivery) {
	for _, d := range ds {
		if d.outcome.chosen {
			in.setAside(d.seq, leaveToOthers)
		}
	}
}
