package failover

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/lab"
)

// Account is what one trial has shown.
type Account struct {
	Standby  string `json:"standby"`
	Messages int    `json:"messages"` // that senders tried to send
	Acked    int    `json:"acknowledged"`
	Unknown  int    `json:"unknown"`         // the send failed
	Arrived  int    `json:"unknown_arrived"` // of these, sent even so

	Lost            int `json:"lost"`
	LostAsync       int `json:"lost_async"`
	NeverReplicated int `json:"never_replicated"`
	DoubleEffects   int `json:"double_effects"`
	Unaccounted     int `json:"unaccounted"`
	Repeated        int `json:"repeated"` // further times that plain handlers handled a message
	Failed          int `json:"failed"`   // in the error table
	Left            int `json:"left"`     // neither handled nor failed
	SequencesBack   int `json:"sequences_went_back"`

	// Seconds from the end of the promotion.
	RecoverySeconds float64 `json:"recovery_seconds"`       // until a message that was sent after it was handled
	FirstEffect     float64 `json:"first_effect_seconds"`   // until anything took effect, such as what was waiting
	SlowestSender   float64 `json:"slowest_sender_seconds"` // until the last of the senders had sent something
	Receivers       int     `json:"receivers"`
	ReceiversBack   int     `json:"receivers_back"`         // whose heartbeat the promoted standby got in time
	PromotedSeconds float64 `json:"promoted_after_seconds"` // from the crash to the end of the promotion
	recovered       bool
	server          string
}

// found is what the database says of a message.
type found struct {
	effects int
	at      time.Time // of the first effect
	places  int       // where it lies: queues, leased, delayed, error
	handled int       // by plain handlers
	seen    time.Time // first by those, after the promotion
}

// account asks the promoted standby, and what the processes have said.
func (t *trial) account(ctx context.Context) (a Account, err error) {
	a = Account{Standby: "asynchronous", Receivers: t.Receivers, ReceiversBack: t.receiversBack, SequencesBack: t.back, server: t.standby.Origin(),
		PromotedSeconds: seconds(t.promoted.Sub(t.crashed))}
	if t.synchronous {
		a.Standby = "synchronous"
	}
	conn, err := pgx.Connect(ctx, t.standby.URL(database))
	if err != nil {
		return a, err
	}
	defer conn.Close(ctx)
	all, err := t.findAll(ctx, conn, &a)
	if err != nil {
		return a, fmt.Errorf("account: %w", err)
	}
	t.balance(&a, all)
	return a, nil
}

func (t *trial) findAll(ctx context.Context, conn *pgx.Conn, a *Account) (map[int64]*found, error) {
	all := map[int64]*found{}
	of := func(n int64) *found {
		if all[n] == nil {
			all[n] = &found{}
		}
		return all[n]
	}
	rows, err := conn.Query(ctx, `SELECT n, count(*), min(at) FROM effect GROUP BY n`)
	if err != nil {
		return nil, err
	}
	var n int64
	var count int
	var at time.Time
	if _, err := pgx.ForEachRow(rows, []any{&n, &count, &at}, func() error {
		of(n).effects, of(n).at = count, at
		return nil
	}); err != nil {
		return nil, err
	}
	err = lab.Lie(ctx, conn, "n", queues, func(place, _ string, n int64) {
		of(n).places++
		if place == "error" {
			a.Failed++
		} else {
			a.Left++
		}
	})
	if err != nil {
		return nil, err
	}
	for _, p := range t.receivers {
		for _, said := range p.all() {
			f := of(said.Plain)
			f.handled++
			if at := time.Unix(0, said.Ended); at.After(t.promoted) && (f.seen.IsZero() || at.Before(f.seen)) {
				f.seen = at
			}
		}
	}
	return all, nil
}

// balance compares what was sent with what was found.
func (t *trial) balance(a *Account, all map[int64]*found) {
	sent := map[int64]bool{}
	var again []time.Duration // after the promotion, messages sent since were handled
	for _, p := range t.senders {
		back := time.Duration(-1)
		for _, said := range p.all() {
			since := said.Began > t.promoted.UnixNano()
			if took := time.Unix(0, said.Ended).Sub(t.promoted); said.Acked && since && (back < 0 || took < back) {
				back = took
			}
			for n := said.First; n < said.First+int64(said.Count); n++ {
				sent[n] = true
				a.weigh(n, said.Acked, time.Unix(0, said.Ended), all[n], t)
				if f := all[n]; f != nil && since {
					again = append(again, f.after(t.promoted)...)
				}
			}
		}
		if back < 0 {
			back = time.Hour // never
		}
		a.SlowestSender = max(a.SlowestSender, seconds(back))
	}
	a.Messages = len(sent)
	first := time.Duration(-1)
	for n, f := range all {
		if !sent[n] {
			a.Unaccounted++
			t.say("message %d comes from nowhere", n)
		}
		if f.effects > 0 && f.at.After(t.crashed) && (first < 0 || f.at.Sub(t.promoted) < first) {
			first = max(0, f.at.Sub(t.promoted))
		}
	}
	a.FirstEffect = seconds(first)
	if a.recovered = len(again) > 0; a.recovered {
		a.RecoverySeconds = seconds(slices.Min(again))
	}
}

// weigh puts one message into the account.
func (a *Account) weigh(n int64, acked bool, ended time.Time, f *found, t *trial) {
	if f == nil {
		f = &found{}
	}
	had := f.effects+f.handled+f.places > 0
	switch {
	case !acked:
		a.Unknown++
		if had {
			a.Arrived++
		}
	default:
		a.Acked++
		replicated := ended.After(t.promoting) || t.journal[n] // before, only the old primary acknowledged anything
		if !replicated {
			a.NeverReplicated++
		}
		if !had && !replicated && !t.synchronous {
			a.LostAsync++
		} else if !had {
			a.Lost++
			t.say("lost: message %d was acknowledged at %s", n, ended.Format("15:04:05.000"))
		}
	}
	if f.effects > 1 {
		a.DoubleEffects++
		t.say("message %d took effect %d times", n, f.effects)
	}
	if f.places > 1 || f.effects > 0 && f.places > 0 {
		a.Unaccounted++
		t.say("message %d has %d effects and lies in %d places", n, f.effects, f.places)
	}
	a.Repeated += max(0, f.handled-1)
}

// after returns how long after a time the message was handled, if it was then.
func (f *found) after(t time.Time) (all []time.Duration) {
	if f.effects > 0 && f.at.After(t) {
		all = append(all, f.at.Sub(t))
	}
	if f.seen.After(t) {
		all = append(all, f.seen.Sub(t))
	}
	return all
}

// seconds rounds to milliseconds.
func seconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }
