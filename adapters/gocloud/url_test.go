package sqlqpubsub

import (
	"context"
	"strings"
	"testing"

	"gocloud.dev/pubsub"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

// URLs lead to the database in the environment.
func TestURLs(t *testing.T) {
	t.Setenv("SQLQ_DATABASE_URL", pgtest.Database(t))
	s, err := pubsub.OpenSubscription(t.Context(), "sqlq://billing?topic=orders.placed&topic=shop:Order&nack_delay=0s&fail_on_nack=false")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown(context.Background())
	for _, url := range []string{"sqlq://orders.placed", "sqlq:///shop:Order", "sqlq://shop/Order?queue=billing", "sqlq://other?allow_no_subscriber=true", "sqlq://orders.placed?content_type=text/plain"} {
		topic, err := pubsub.OpenTopic(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		send(t, topic, &pubsub.Message{Body: []byte(url)})
		if err := topic.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if strings.Contains(url, "other") {
			continue // nobody gets it
		}
		m := receive(t, s)
		if string(m.Body) != url {
			t.Errorf("received %q, want %q", m.Body, url)
		}
		m.Nack()
		receive(t, s).Ack()
	}
}

// Mistyped URLs are refused with what is wrong.
func TestURLsThatAreRefused(t *testing.T) {
	t.Parallel()
	o := &URLOpener{Client: newClient(t, newPool(t, pgtest.Database(t)))}
	var mux pubsub.URLMux
	mux.RegisterTopic("sqlq", o)
	mux.RegisterSubscription("sqlq", o)
	for url, want := range map[string]string{
		"sqlq://t?quque=x": `unknown parameter "quque"`, "sqlq://t?allow_no_subscriber=yes": "must be true or false",
	} {
		if _, err := mux.OpenTopic(t.Context(), url); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", url, err, want)
		}
	}
	for url, want := range map[string]string{
		"sqlq://q?topics=x": `unknown parameter "topics"`, "sqlq://q?nack_delay=1": `parameter "nack_delay"`, "sqlq://q?fail_on_nack=1": `parameter "fail_on_nack"`,
	} {
		if _, err := mux.OpenSubscription(t.Context(), url); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", url, err, want)
		}
	}
}
