package ops_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// kindOf says whether an error is one of a type.
func kindOf[T error](err error) bool {
	var kind T
	return errors.As(err, &kind)
}

// Each error says what happened, where, and what to do, and is of the kind that its documentation names.
func TestErrorsAreWords(t *testing.T) {
	t.Parallel()
	d, ctx := open(t), t.Context()
	d.create("sales", "billing")
	d.fail("sales", "g1", 2)
	d.fail("gone", "g2", 1)
	d.exec(`INSERT INTO sqlq.operation (kind, status, filter) VALUES ('import', 'interrupted', '{}'), ('replay', 'done', '{}')`)
	d.exec(`SELECT sqlq.send('billing', 't', '{}')`)
	first, role := d.failed("1"), d.role("words")
	d.exec(`UPDATE sqlq.error SET body = '{"order":2}' WHERE seq = 1`)

	odd := openOdd(t, "Weird schema")
	err := func(_ any, err error) error { return err }
	sent := func(_ []string, err error) error { return err }
	published := func(_ []ops.Published, _ []string, err error) error { return err }
	body := json.RawMessage(`{}`)
	for _, c := range []struct {
		what string
		err  error
		is   func(error) bool
		text string
	}{
		{"a queue like others", err(d.Queues.Show(ctx, "sale")), kindOf[*ops.NoQueueError], `queue "sale" does not exist in schema "sqlq"; there is "sales"`},
		{"a queue that is nothing like them", sent(d.Send(ctx, "audit", ops.Outgoing{Type: "t"}, body)), kindOf[*ops.NoQueueError], `queue "audit" does not exist in schema "sqlq"; there are "billing", "sales"`},
		{"no queue at all", err(odd.Queues.Pause(ctx, "sales")), kindOf[*ops.NoQueueError], `queue "sales" does not exist in schema "Weird schema"; make it with: sqlq queue create sales --schema 'Weird schema'`},
		{"queue name", err(d.Queues.Create(ctx, "no spaces")), nil, `create queue "no spaces": ERROR: queue name "no spaces" is not allowed (SQLSTATE 42602)`},
		{"a queue that is not empty", err(d.Queues.Drop(ctx, "billing", false)), nil, `drop queue "billing": ERROR: queue "billing" holds 1 messages (SQLSTATE 55000)`},
		{"everything", err(d.Failed.Replay(ctx, ops.Filter{}, ops.ReplayOptions{})), is(ops.ErrFilterEmpty), `the filter chooses every failed message: name a queue, a type, a group or messages, or say that all are meant`},
		{"everything delayed", err(d.Delayed.Cancel(ctx, ops.Filter{}, ops.ChangeOptions{})), is(ops.ErrDelayedFilterEmpty), `the filter chooses every delayed message: name a queue, a type or messages, or say that all are meant`},
		{"failed messages that are not there", err(d.Failed.Replay(ctx, ops.Filter{Names: []string{"77"}}, ops.ReplayOptions{})), kindOf[*ops.NoFailedError], `not in the error table (see: sqlq error ls --status any): 77`},
		{"a name that is none", err(d.Failed.Show(ctx, "seven")), nil, `"seven" names no failed message: give its number or its id, which is a UUID`},
		{"a queue that is gone", err(d.Failed.Replay(ctx, ops.Filter{Group: "g2"}, ops.ReplayOptions{})), kindOf[*ops.QueueGoneError], `the messages of "gone" stay in the error table, because there is no such queue any more; make it and replay again: sqlq queue create gone`},
		{"edited meanwhile", err(d.Failed.Edit(ctx, first, ops.Edit{Body: []byte(`{"order":3}`)})), is(ops.ErrChanged), `edit failed message 1: somebody else has edited the message meanwhile; look at it and edit it again`},
		{"a body that is broken", err(d.Failed.PreviewEdit(ctx, first, ops.Edit{Body: []byte(`{"order":`)})), kindOf[*ops.BodyError], `the body is not JSON: unexpected end of JSON input, in line 1`},
		{"delayed messages that are not there", err(d.Delayed.Show(ctx, "77")), kindOf[*ops.NoDelayedError], `not among the delayed (see: sqlq delayed ls): 77`},
		{"two times", err(d.Delayed.Reschedule(ctx, ops.Filter{Queue: "sales"}, ops.Due{In: time.Hour, By: time.Hour}, ops.ChangeOptions{})), nil, `a time, a delay from now and a shift exclude one another: give one of them`},
		{"leases that are not there", err(d.Leases.Release(ctx, ops.LeaseFilter{Names: []string{"77"}})), kindOf[*ops.NoLeaseError], `not leased (see: sqlq lease ls): 77`},
		{"an operation that is not there", err(d.Operations.Show(ctx, 77)), kindOf[*ops.NoOperationError], `there is no operation 77; list them with: sqlq operation ls`},
		{"one that cannot be resumed", err(d.Operations.Resume(ctx, 1, nil)), nil, `operation 1 is of the kind "import", which cannot be resumed: run it again`},
		{"one that is done", err(d.Operations.Resume(ctx, 2, nil)), nil, `operation 2 is done: there is nothing to resume`},
		{"no subscriber", published(d.Publish(ctx, ops.Outgoing{Type: "sales.OrderPlaced"}, body)), is(ops.ErrNoSubscriber), `publish "sales.OrderPlaced": no queue is subscribed to it`},
		{"a body that is none", sent(d.Send(ctx, "sales", ops.Outgoing{Type: "t"}, json.RawMessage(`{`))), kindOf[*ops.BodyError], `body 1: the body is not JSON: unexpected end of JSON input`},
		{"a filter", err(ops.ParseMoment("5x")), kindOf[*ops.FilterError], "\"5x\": \"x\" is no unit; write a duration such as 90m, 2d or 1h30m, or a time such as 2026-03-01T15:04:05Z\n  5x\n   ^"},
		{"a line", err(d.Ready.Import(ctx, "sales", strings.NewReader("{\"type\":\"t\"}\n"), ops.ImportOptions{})), kindOf[*ops.LineError], `line 1: body is missing; an empty one is null`},
		{"a role", d.Roles.Grant(ctx, ops.Grant{Role: role + "x", Kind: "viewer"}), kindOf[*ops.NoRoleError], fmt.Sprintf("role %q does not exist on this server; there is %q", role+"x", role)},
		{"a kind of role", d.Roles.Grant(ctx, ops.Grant{Role: "web", Kind: "king"}), nil, `kind of role "king" is not known: there are "producer", "consumer", "operator", "viewer"`},
	} {
		if c.err == nil || c.is != nil && !c.is(c.err) {
			t.Errorf("%s: %v (%T) is not what it should be", c.what, c.err, c.err)
		} else if c.err.Error() != c.text {
			t.Errorf("%s:\n%s\nwant\n%s", c.what, c.err, c.text)
		}
		if kindOf[*ops.NoQueueError](c.err) && !errors.Is(c.err, sqlq.ErrNoQueue) {
			t.Errorf("%s: %v is no sqlq.ErrNoQueue", c.what, c.err)
		}
	}
}

func is(kind error) func(error) bool { return func(err error) bool { return errors.Is(err, kind) } }
