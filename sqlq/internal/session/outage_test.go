package session

import (
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// An answer to what was asked before a connection was lost does not end the outage; a later one does.
func TestOutageOutlastsLateAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said strings.Builder
		o := NewOutage(slog.New(slog.NewTextHandler(&said, nil)))
		asked := time.Now()
		time.Sleep(time.Millisecond)
		if !o.Begin(Receive, net.ErrClosed) {
			t.Fatal("a lost connection is no outage")
		}
		time.Sleep(time.Millisecond)
		o.End(Receive, asked)
		if strings.Contains(said.String(), "the database is back") {
			t.Errorf("an answer from before it was lost ended it:\n%s", &said)
		}
		o.End(Receive, time.Now())
		if !strings.Contains(said.String(), "the database is back") {
			t.Errorf("a connection works, and nothing was said:\n%s", &said)
		}
	})
}
