package sqlq

import (
	"context"
	"errors"
	"testing"

	"github.com/sqlq/sqlq/sqlq/internal/sending"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// Without an Observer, and with one that has no funcs, telling it costs no allocation and no look at the clock; nor does reading a
// body of JSON allocate for its content type.
func TestNoObserverCostsNothing(t *testing.T) {
	in := &instance{group: &group{ctx: t.Context()}, endpoint: Endpoint{Name: "sales"}}
	d := &delivery{batch: &batch{in: in}}
	d.ctx = t.Context()
	w, ms, s, out, e, failed := &work{in: in}, make([]store.Message, 3), &settlement{}, &Outgoing{}, &sending.Envelope{}, errors.New("failed")
	leases := map[int64]int64{1: 1}
	for name, o := range map[string]*observing{"none": nil, "empty": newObserving(&Observer{}, nil)} {
		n := testing.AllocsPerRun(100, func() {
			ctx := o.sending(d.ctx, out, false, nil)
			_ = o.sent(ctx, e, 1, nil, failed)
			o.fetched(w, ms)
			_ = o.begun(ctx, d)
			o.decided(d)
			o.undone(d)
			if began := o.now(); !began.IsZero() {
				t.Error("it looked at the clock")
			}
			o.settled(in, s)
			o.leased(in, leases)
			o.woken(in, WokenByPolling)
			o.led(ctx, "sqlq", true)
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	codecs, incoming := newCodecs(nil), &Incoming{Headers: Headers{"tenant": "north"}}
	if n := testing.AllocsPerRun(100, func() {
		if unknownContentHeader(incoming.Headers) != "" {
			t.Error("an unknown header")
		}
		for _, contentType := range []string{"", jsonContentType} {
			if c, err := codecs.decoding(contentType); err != nil || c != codecs.json {
				t.Error(err)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations to choose the codec", n)
	}
	with := newObserving(&Observer{Begun: func(ctx context.Context, _ ObservedAttempt) context.Context { return ctx }}, nil)
	if n := testing.AllocsPerRun(100, func() { _ = with.begun(d.ctx, d) }); n != 0 {
		t.Errorf("%v allocations for a func that does nothing", n)
	}
}
