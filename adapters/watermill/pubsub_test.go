package sqlqwatermill_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
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
	tests.TestReconnect(t, tests.TestContext{TestID: tests.NewTestID(), Features: withRestart}, func(t *testing.T) (message.Publisher, message.Subscriber) {
		publisher, subscriber := p.pubSub(t)
		return publisher, lastComesLate(t, subscriber)
	})
}

// lastComesLate holds the last of the messages of TestReconnect back for a moment. That test notes what it has published in a goroutine of its
// own and does not wait for it, so a message that arrives as fast as here might not have been noted yet.
func lastComesLate(t *testing.T, subscriber message.Subscriber) message.Subscriber {
	t.Helper()
	const published = 10_000
	seen := map[string]bool{}
	late, err := message.MessageTransformSubscriberDecorator(func(m *message.Message) {
		if seen[m.UUID] = true; len(seen) == published {
			<-time.After(200 * time.Millisecond)
		}
	})(subscriber)
	if err != nil {
		t.Fatal(err)
	}
	return late
}
