package sqlqwatermill_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"github.com/sqlq/sqlq/internal/devpg"
	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

// features are what the adapter promises of what Watermill's suite knows. The README says why the others are false.
var features = tests.Features{
	ConsumerGroups: true,
	Persistent:     true,
}

// TestPubSub is Watermill's suite, with Pub/Subs that share three Clients.
func TestPubSub(t *testing.T) {
	p := newProcesses(t, pgtest.Database(t), 3)
	tests.TestPubSub(t, features, p.pubSub, p.groupPubSub)
}

// TestPubSubStress is Watermill's suite ten times at once, or $STRESS_TEST_COUNT times, with several messages in hand at a time.
func TestPubSubStress(t *testing.T) {
	p := newProcesses(t, pgtest.Database(t), 3)
	p.config.Concurrency = 8
	tests.TestPubSubStressTest(t, features, p.pubSub, p.groupPubSub)
}

// TestReconnect is the part of Watermill's suite that restarts the server, which here is one of its own.
func TestReconnect(t *testing.T) {
	o, err := devpg.TestOptions()
	if err != nil {
		t.Fatal(err)
	}
	o.Durable = true
	server, err := devpg.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	url := server.URL("postgres")
	if err := migrate.Up(t.Context(), url, pgtest.Schema); err != nil {
		t.Fatal(err)
	}
	restarts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := server.Restart(context.WithoutCancel(r.Context())); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}))
	t.Cleanup(restarts.Close)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	withRestart := features
	withRestart.RestartServiceCommand = []string{program, restartCommand, restarts.URL}
	p := newProcesses(t, url, 1)
	tests.TestReconnect(t, tests.TestContext{TestID: tests.NewTestID(), Features: withRestart}, p.pubSub)
}
