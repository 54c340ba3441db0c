package sqlqtest_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/sqlqtest"
)

// A delivery made by hand looks like a real first one, and what is sent through it is recorded.
func TestNewDelivery(t *testing.T) {
	t.Parallel()
	d, outbox := sqlqtest.NewDelivery(t, placeOrder{17, "1 EUR"})
	if d.Message != (placeOrder{17, "1 EUR"}) || d.Type != "sales.PlaceOrder" || d.Attempt != 1 || d.Endpoint != "test" || string(d.Body) != `{"Order":17,"Total":"1 EUR"}` ||
		d.ID == (sqlq.ID{}) || d.CorrelationID != d.ID.String() || time.Since(d.SentAt) > time.Minute {
		t.Errorf("made %+v", d.Incoming)
	}
	sqlqtest.ExpectSent[*charge](t, outbox)
	sqlqtest.ExpectPublished[orderPlaced](t, outbox)
	d.CorrelationID = "SO-17"
	if err := errors.Join(
		d.Send(&charge{17}, sqlq.Delay(time.Hour), sqlq.WithHeader("tenant", "north")),
		d.Send(&charge{18}, sqlq.To("billing"), sqlq.At(time.Now().Add(time.Hour)), sqlq.ExpiresIn(2*time.Hour)),
		d.Publish(orderPlaced(d.Message)),
	); err != nil {
		t.Fatal(err)
	}
	sqlqtest.ExpectPublished(t, outbox, orderPlaced{17, "1 EUR"})
	sqlqtest.ExpectSent(t, outbox, &charge{18}, &charge{17})
	sent := sqlqtest.Sent[*charge](t, outbox)
	if first := sent[0]; first.Delay != time.Hour || first.Queue != "" || first.Headers["tenant"] != "north" || first.CorrelationID != "SO-17" {
		t.Errorf("sent %+v", first)
	}
	if second := sent[1]; second.Delay != time.Hour || second.Queue != "billing" || second.ExpiresIn != 2*time.Hour || second.ConversationID != d.ConversationID {
		t.Errorf("sent %+v", second)
	}
	says(t, fake(t, func(t sqlqtest.TB) { sqlqtest.ExpectSent(t, outbox, &charge{17}, &charge{19}) }), "want 2 sent, got 2", `-   "Order": 19`, `+   "Order": 18`)
	says(t, fake(t, func(t sqlqtest.TB) { sqlqtest.ExpectSent(t, outbox, placeOrder{}) }), "not sent", "other types sent: billing.Charge (2), sales.OrderPlaced (1)")
}

// What is checked when a message is sent is checked here, too.
func TestNewDeliveryRefuses(t *testing.T) {
	t.Parallel()
	d, outbox := sqlqtest.NewDelivery(t, placeOrder{})
	for want, err := range map[error]error{
		sqlq.ErrIsEvent:     d.Send(orderPlaced{}),
		sqlq.ErrNotEvent:    d.Publish(placeOrder{}),
		sqlq.ErrInvalidName: d.Send(placeOrder{}, sqlq.WithHeader("sqlq-own", "x")),
		sqlq.ErrInvalidTime: d.Send(placeOrder{}, sqlq.Delay(time.Hour), sqlq.ExpiresIn(time.Minute)),
	} {
		if !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	sqlqtest.ExpectSent[placeOrder](t, outbox)
	says(t, fake(t, func(t sqlqtest.TB) {
		sqlqtest.NewDelivery(t, placeOrder{}, sqlqtest.WithConfig(sqlq.Config{MaxBody: -1}))
	}), "MaxBody")
	says(t, fake(t, func(t sqlqtest.TB) { sqlqtest.NewDelivery(t, unwritable{}) }), "test.Unwritable cannot be encoded")
	says(t, fake(t, func(t sqlqtest.TB) { sqlqtest.NewDelivery(t, unreadable{}) }), "test.Unreadable cannot be decoded again", `"no number"`)
}

type unwritable struct{ C chan int }

func (unwritable) MessageType() string { return "test.Unwritable" }

type unreadable struct{ N int }

func (unreadable) MessageType() string          { return "test.Unreadable" }
func (unreadable) MarshalJSON() ([]byte, error) { return []byte(`{"N":"no number"}`), nil }

// With a Config the delivery sends as a Client with that Config would.
func TestNewDeliveryWithConfig(t *testing.T) {
	t.Parallel()
	config := sqlq.Config{
		Routes: map[string]string{"billing.Charge": "billing"},
		Codecs: []sqlq.Codec{{ContentType: "text/base64", Encode: func(m any) ([]byte, error) {
			text, err := json.Marshal(m)
			return []byte(base64.StdEncoding.EncodeToString(text)), err
		}, Decode: func(body []byte, into any) error {
			text, err := base64.StdEncoding.DecodeString(string(body))
			return errors.Join(err, json.Unmarshal(text, into))
		}}},
	}
	d, outbox := sqlqtest.NewDelivery(t, &charge{17}, sqlqtest.WithConfig(config))
	if *d.Message != (charge{17}) || string(d.Body) != "eyJPcmRlciI6MTd9" {
		t.Errorf("made %+v of %s", d.Message, d.Body)
	}
	if err := d.Send(placeOrder{}); !errors.Is(err, sqlq.ErrNoRoute) {
		t.Errorf("without a route: %v", err)
	}
	if err := d.Send(&charge{18}); err != nil {
		t.Fatal(err)
	}
	sqlqtest.ExpectSent(t, outbox, &charge{18})
	if got := sqlqtest.Sent[*charge](t, outbox)[0].Queue; got != "billing" {
		t.Errorf("sent to %q", got)
	}
	says(t, fake(t, func(t sqlqtest.TB) { sqlqtest.ExpectSent(t, outbox, &charge{19}) }), `-   "Order": 19`, `+   "Order": 18`)
	if _, outbox := sqlqtest.NewDelivery(t, &charge{17}, sqlqtest.WithConfig(sqlq.Config{})); len(sqlqtest.Sent[*charge](t, outbox)) != 0 {
		t.Error("something was sent")
	}
}
