package failover

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sqlq/sqlq/internal/devpg"
)

func TestMain(m *testing.M) {
	BeChild()
	os.Exit(m.Run())
}

// A short run of both trials. What is lost with the asynchronous standby, which gets nothing for a while before the crash,
// is known to the accountant for what it is.
func TestFailover(t *testing.T) {
	t.Parallel()
	server, err := devpg.TestOptions()
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	r, err := Run(t.Context(), Options{
		Child: func() *exec.Cmd { return exec.Command(os.Args[0]) },
		Rate:  500, Load: time.Second, Outage: 200 * time.Millisecond, Receivers: 2, Server: server, Log: &log,
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	if err := r.Err(); err != nil {
		t.Errorf("%v\n%s\n%+v", err, &log, r)
	}
	if r.LostAsync == 0 || r.NeverReplicated < r.LostAsync || r.Messages < 1000 {
		t.Errorf("%d messages, %d lost, %d never replicated: this has shown nothing", r.Messages, r.LostAsync, r.NeverReplicated)
	}
}

// The accountant finds what is made up for it.
func TestAccount(t *testing.T) {
	t.Parallel()
	crash := time.Now().Add(-10 * time.Second)
	before, after := crash.Add(-time.Second).UnixNano(), crash.Add(3*time.Second).UnixNano()
	sender, receiver := &process{}, &process{}
	sender.said = []told{
		{First: 1, Count: 6, Acked: true, Began: before, Ended: before},
		{First: 7, Count: 2, Began: before, Ended: before, Err: "cut off"},
		{First: 9, Count: 2, Acked: true, Began: after, Ended: after},
	}
	all := map[int64]*found{
		1:  {handled: 3},                                         // repeated twice
		2:  {effects: 2, at: crash.Add(-time.Second)},            // double
		4:  {effects: 1, places: 1, at: crash.Add(-time.Second)}, // in two places
		6:  {places: 2},                                          // too
		7:  {handled: 1},                                         // unknown, and arrived
		10: {effects: 1, at: crash.Add(3500 * time.Millisecond)}, // 1.5 s after the promotion
		99: {effects: 1, at: crash.Add(-2 * time.Second)},        // from nowhere
	}
	// Nowhere: 3, which the standby had; 5, which it never had; 9, which the promoted one acknowledged.
	for _, synchronous := range []bool{true, false} {
		tr := &trial{Options: Options{}.withDefaults(), synchronous: synchronous, senders: []*process{sender}, receivers: []*process{receiver},
			journal: map[int64]bool{1: true, 2: true, 3: true, 4: true, 6: true},
			crashed: crash, promoting: crash.Add(time.Second), promoted: crash.Add(2 * time.Second)}
		var got Account
		tr.balance(&got, all)
		want := Account{Messages: 10, Acked: 8, Unknown: 2, Arrived: 1, Lost: 3, NeverReplicated: 1, DoubleEffects: 1, Unaccounted: 3, Repeated: 2,
			RecoverySeconds: 1.5, FirstEffect: 1.5, SlowestSender: 1, recovered: true}
		if !synchronous {
			want.Lost, want.LostAsync = 2, 1
		}
		if got != want {
			t.Errorf("synchronous %v:\ngot  %+v\nwant %+v", synchronous, got, want)
		}
	}
}
