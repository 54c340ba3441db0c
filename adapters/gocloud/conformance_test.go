package sqlqpubsub

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"gocloud.dev/pubsub"
	"gocloud.dev/pubsub/driver"
	"gocloud.dev/pubsub/drivertest"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// TestConformance is the suite of the Go CDK, with topics that publish events. It skips nothing.
func TestConformance(t *testing.T) {
	drivertest.RunConformanceTests(t, newHarness(false), []drivertest.AsTest{asTest{}})
}

// TestConformanceOfCommands is the same suite with topics that send commands to one queue. It skips TestSendReceiveTwo, because a queue is
// one subscription: those who receive from it share its messages.
func TestConformanceOfCommands(t *testing.T) {
	drivertest.RunConformanceTests(t, newHarness(true), []drivertest.AsTest{asTest{}})
}

// harness makes topics and subscriptions in a database of its own.
type harness struct {
	pool     *pgxpool.Pool
	client   *sqlq.Client
	commands bool // topics send commands
	made     atomic.Int64
}

func newHarness(commands bool) drivertest.HarnessMaker {
	return func(_ context.Context, t *testing.T) (drivertest.Harness, error) {
		pool := newPool(t, pgtest.Database(t))
		return &harness{pool: pool, client: newClient(t, pool), commands: commands}, nil
	}
}

func (h *harness) CreateTopic(ctx context.Context, _ string) (driver.Topic, func(), error) {
	name := fmt.Sprintf("topic-%d", h.made.Add(1))
	if !h.commands {
		t, err := newTopic(h.client, name, nil)
		return t, func() {}, err
	}
	if _, err := h.pool.Exec(ctx, `SELECT sqlq.create_queue($1)`, name); err != nil {
		return nil, nil, err
	}
	t, err := newTopic(h.client, "test.Command", &TopicOptions{Queue: name})
	return t, func() {}, err
}

func (h *harness) MakeNonexistentTopic(context.Context) (driver.Topic, error) {
	if h.commands {
		return newTopic(h.client, "test.Command", &TopicOptions{Queue: "missing"})
	}
	return newTopic(h.client, "missing", nil)
}

func (h *harness) CreateSubscription(ctx context.Context, dt driver.Topic, _ string) (driver.Subscription, func(), error) {
	of := dt.(*topic)
	queue, o := of.options.Queue, SubscriptionOptions{}
	if !h.commands {
		queue, o.Topics = fmt.Sprintf("subscription-%d", h.made.Add(1)), []string{of.messageType}
	}
	s, err := newSubscription(h.client, queue, &o)
	if err == nil {
		err = s.prepare(ctx)
	}
	return s, func() { _ = s.Close() }, err // TestDoubleAck does not close it
}

func (h *harness) MakeNonexistentSubscription(context.Context) (driver.Subscription, func(), error) {
	s, err := newSubscription(h.client, "missing", nil)
	return s, func() {}, err
}

func (h *harness) Close() {}

func (h *harness) MaxBatchSizes() (int, int) { return 0, 0 }

func (h *harness) SupportsMultipleSubscriptions() bool { return !h.commands }

// asTest checks what doc.go promises of As.
type asTest struct{}

func (asTest) Name() string { return "types of sqlq" }

func (asTest) TopicCheck(t *pubsub.Topic) error {
	var client *sqlq.Client
	return must(t.As(&client) && client != nil, "Topic.As has no Client")
}

func (asTest) SubscriptionCheck(s *pubsub.Subscription) error {
	var client *sqlq.Client
	return must(s.As(&client) && client != nil, "Subscription.As has no Client")
}

func (asTest) TopicErrorCheck(t *pubsub.Topic, err error) error {
	var batch *sqlq.BatchError
	return must(t.ErrorAs(err, &batch) || errors.Is(err, ErrNoSubscriber), "Topic.ErrorAs finds nothing")
}

func (asTest) SubscriptionErrorCheck(_ *pubsub.Subscription, err error) error {
	return must(errors.Is(err, sqlq.ErrNoQueue), "the error of the subscription is not ErrNoQueue")
}

const asHeader = "as-test"

func (asTest) BeforeSend(as func(any) bool) error {
	var e *sqlq.Envelope
	if !as(&e) {
		return errors.New("BeforeSend has no Envelope")
	}
	e.Options = append(e.Options, sqlq.WithHeader(asHeader, "was here"))
	return nil
}

func (asTest) AfterSend(as func(any) bool) error {
	var receipt sqlq.Receipt
	return must(as(&receipt) && receipt.ID != (sqlq.ID{}) && receipt.Copies == 1, "AfterSend has no Receipt")
}

func (asTest) MessageCheck(m *pubsub.Message) error {
	var in *sqlq.Incoming
	var received *sqlq.Received
	return must(m.As(&in) && m.As(&received) && received.Incoming == in && in.ID.String() == m.LoggableID && in.Headers[asHeader] == "was here",
		"Message.As has no Incoming and Received")
}

func must(is bool, otherwise string) error {
	if !is {
		return errors.New(otherwise)
	}
	return nil
}
