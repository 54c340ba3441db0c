package ops_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// What operators look at is this JSON, for the command line and for everybody else: programs read its names.
func TestJSON(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 16, 4, 5, 678_900_000, time.FixedZone("", 3600))
	minute, wanted := 90*time.Second, int64(3)
	infinite := time.Unix(math.MaxInt64/2, 0)
	in := 1.5
	failed := ops.FailedMessage{Number: 17, ID: "i", Status: ops.StatusFailed, Queue: "sales", Endpoint: "sales", Host: "h", Type: "T<1>", Attempts: 3,
		Replays: 1, SentAt: at, ExpiresAt: &infinite, FirstFailedAt: at, FailedAt: at, ErrorType: "*e", Error: "a & b", Group: "g"}
	const short = `{"number":17,"id":"i","status":"failed","queue":"sales","endpoint":"sales","host":"h","type":"T<1>","attempts":3,"replays":1,` +
		`"sent_at":"2026-03-01T15:04:05.6789Z","expires_at":"9999-12-31T23:59:59.999999Z","first_failed_at":"2026-03-01T15:04:05.6789Z",` +
		`"failed_at":"2026-03-01T15:04:05.6789Z","archived_at":null,"error_type":"*e","error":"a & b","group":"g"`
	whole := failed
	whole.Body, whole.Chain = []byte(`{"n": 1}`), []string{"a", "b"}
	const long = short + `,"headers":{},"chain":["a","b"],"body":{"n":1}`
	replaced := ops.Past{At: at, What: "edit", Operation: 7, Queue: "sales", Headers: json.RawMessage(`{"a":"b"}`), Body: []byte("\xff")}
	const edited = `{"at":"2026-03-01T15:04:05.6789Z","what":"edit","operation":7,"role":"","os_user":"","host":"","queue":"sales",` +
		`"before":{"headers":{"a":"b"},"body":"/w==","body_encoding":"base64"}}`
	queue := ops.Queue{Name: "sales", Ready: ops.Count{N: 5, Estimated: true}, Failed: ops.Count{N: 1, Estimated: true}, OldestAt: &at, OldestAge: &minute, In: &in}
	const queued = `{"queue":"sales","ready":5,"delayed":0,"leased":0,"failed":1,"estimated":["ready","failed"],"oldest_sent_at":"2026-03-01T15:04:05.6789Z",` +
		`"oldest_age_seconds":90,"in_per_second":1.5,"out_per_second":0,"instances":0,"paused_at":null`
	for _, c := range []struct {
		of   any
		want string
	}{
		{failed, short + `}`},
		{whole, long + `}`},
		{ops.FailedDetail{FailedMessage: whole}, long + `,"history":[]}`},
		{ops.FailedDetail{FailedMessage: whole, History: []ops.Past{replaced}}, long + `,"history":[` + edited + `]}`},
		{ops.Past{At: at, What: "replay", FailedAt: &at, Attempts: 3, FailedOn: "h", Error: "e", Reason: "r"}, `{"at":"2026-03-01T15:04:05.6789Z","what":"replay",` +
			`"operation":0,"role":"","os_user":"","host":"","reason":"r","queue":"","attempts":3,"failed_at":"2026-03-01T15:04:05.6789Z","failed_on":"h","error":"e"}`},
		{ops.Group{By: ops.ByFault, Group: "g", Count: ops.Count{N: 4, Estimated: true}, Archived: 1, Queues: []string{"sales"}, Types: []string{"T"}, FirstAt: at, LastAt: at, Number: 9},
			`{"group":"g","count":4,"estimated":true,"archived":1,"status":"both","queues":["sales"],"types":["T"],` +
				`"first_failed_at":"2026-03-01T15:04:05.6789Z","last_failed_at":"2026-03-01T15:04:05.6789Z","number":9,"error_type":"","error":""}`},
		{ops.Group{By: ops.ByQueue, Group: "sales", Count: ops.Count{N: 1}}, `{"by":"queue","group":"sales","count":1,"estimated":false,"archived":0,"status":"failed",` +
			`"queues":null,"types":null,"first_failed_at":"0001-01-01T00:00:00Z","last_failed_at":"0001-01-01T00:00:00Z","number":0,"error_type":"","error":""}`},
		{ops.DelayedMessage{Number: 1, ID: "i", Queue: "sales", Type: "T", Why: ops.WhyRetry, DueAt: at, DueIn: -1500 * time.Millisecond, SentAt: time.Time{}, Attempts: 2, Error: "e"},
			`{"number":1,"id":"i","queue":"sales","type":"T","why":"retry","due_at":"2026-03-01T15:04:05.6789Z","due_in_seconds":-1.5,` +
				`"sent_at":"0001-01-01T00:00:00Z","expires_at":null,"attempts":2,"error":"e"}`},
		{ops.DelayedMessage{DueAt: at, SentAt: at, Body: []byte{}}, `{"number":0,"id":"","queue":"","type":"","why":"","due_at":"2026-03-01T15:04:05.6789Z",` +
			`"due_in_seconds":0,"sent_at":"2026-03-01T15:04:05.6789Z","expires_at":null,"attempts":0,"headers":{},"body":"","body_encoding":"base64"}`},
		{ops.DelayedPreview{Messages: 2, More: true}, `{"dry_run":true,"chosen":2,"more":true,"sample":[]}`},
		{ops.Message{Seq: 1, ID: "i", Type: "T", SentAt: at}, `{"seq":1,"id":"i","type":"T","sent_at":"2026-03-01T15:04:05.6789Z","expires_at":null,"attempt":0}`},
		{ops.Message{Seq: 1, SentAt: at, Headers: json.RawMessage(`{"a":"b"}`), Body: []byte(`1`)},
			`{"seq":1,"id":"","type":"","sent_at":"2026-03-01T15:04:05.6789Z","expires_at":null,"attempt":0,"headers":{"a":"b"},"body":1}`},
		{ops.Lease{Number: 1, Message: "i", Type: "T", Queue: "sales", Attempt: 1, SentAt: at, LeasedAt: at, For: minute, Instance: 4, State: ops.InstanceLate, Host: "h", PID: 5},
			`{"lease":1,"id":"i","type":"T","queue":"sales","attempts":1,"sent_at":"2026-03-01T15:04:05.6789Z","leased_at":"2026-03-01T15:04:05.6789Z",` +
				`"leased_seconds":90,"instance":4,"instance_state":"late","host":"h","pid":5}`},
		{ops.Released{Released: 2, Busy: 1}, `{"released":2,"busy":1}`},
		{ops.Instance{ID: 4, Endpoint: "sales", StartedAt: at, LastSeen: at, State: ops.InstanceRunning, Slowest: &minute},
			`{"endpoint":"sales","id":4,"host":"","pid":0,"version":"","state":"running","started_at":"2026-03-01T15:04:05.6789Z",` +
				`"last_seen_at":"2026-03-01T15:04:05.6789Z","ended_at":null,"concurrency":0,"in_hand":0,"rate_per_second":0,"handled":0,"failed":0,"expired":0,` +
				`"slow":0,"slowest_seconds":90}`},
		{ops.Operation{ID: 7, Kind: "replay", Status: ops.OperationInterrupted, Filter: json.RawMessage(`{"queue":"sales"}`), Wanted: &wanted, Done: 1, BeganAt: at, UpdatedAt: at, EndedAt: &at},
			`{"operation":7,"kind":"replay","status":"interrupted","filter":{"queue":"sales"},"queue":null,"wanted":3,"done":1,"role":"","os_user":"","host":"",` +
				`"reason":"","began_at":"2026-03-01T15:04:05.6789Z","updated_at":"2026-03-01T15:04:05.6789Z","ended_at":"2026-03-01T15:04:05.6789Z","resumable":true}`},
		{queue, queued + `}`},
		{ops.QueueDetail{Queue: queue, CreatedAt: at, Size: 8192, Dead: 2, Low: 1, Running: []ops.QueueInstance{{Number: 4, StartedAt: at, HeartbeatAt: at}}},
			queued + `,"created_at":"2026-03-01T15:04:05.6789Z","subscribed":null,"table_bytes":8192,"dead_rows":2,"low":1,"running":[{"number":4,"host":"","pid":0,` +
				`"version":"","concurrency":0,"in_hand":0,"out_per_second":0,"started_at":"2026-03-01T15:04:05.6789Z","heartbeat_at":"2026-03-01T15:04:05.6789Z"}]}`},
		{ops.Route{Type: "T", Subscribers: []ops.Subscription{{Type: "T", Queue: "sales", Since: at, Instances: 1}}, Failed: []ops.TypeSeen{{Queue: "billing", N: 2, LastAt: at}},
			Named: "t", Endpoints: map[string]int{"sales": 1}},
			`{"type":"T","subscribed":[{"type":"T","queue":"sales","since":"2026-03-01T15:04:05.6789Z","instances":1}],"waiting":[],` +
				`"failed":[{"queue":"billing","count":2,"last_at":"2026-03-01T15:04:05.6789Z"}],"named":"t","instances":{"billing":0,"sales":1,"t":0}}`},
		{ops.Found{ID: "i", Copies: []ops.Copy{{Place: ops.PlaceReady, Queue: "sales", Number: 1, SentAt: at, At: at}}, Unlooked: []ops.Unseen{{Place: ops.PlaceLeased, Why: "w"}}},
			`{"id":"i","copies":[{"place":"ready","queue":"sales","number":1,"type":"","attempts":0,"sent_at":"2026-03-01T15:04:05.6789Z",` +
				`"at":"2026-03-01T15:04:05.6789Z","instance":0,"error":""}],"history":[],"not_looked_at":[{"place":"leased","queue":"","why":"w"}]}`},
		{ops.Count{N: 1}, `{"count":1,"estimated":false}`},
		{ops.Published{ID: "i", Copies: 2}, `{"id":"i","copies":2}`},
		{ops.Imported{Ready: 1, UpTo: 2, LeftOut: 1, Damaged: []*ops.LineError{{Line: 2, Err: errors.New("wrong")}}},
			`{"ready_imported":1,"delayed_imported":0,"lines_done":2,"left_out":1,"damaged":["line 2: wrong"]}`},
		{ops.Preview{Kind: "replay", Messages: ops.Count{N: 2}, Gone: []string{"q"}, Unnamed: &ops.NoFailedError{Missing: []string{"9"}}},
			`{"dry_run":true,"would":"replay","messages":2,"estimated":false,"gone_queues":["q"],"missing":["9"],"sample":[]}`},
		{ops.Check{Name: "backlog", About: "?", Took: time.Second}, `{"check":"backlog","about":"?","result":"ok","seconds":1,"findings":[]}`},
		{ops.Check{Name: "backlog", About: "?", Took: time.Second, Findings: []ops.Finding{{Severity: ops.SeverityNote, Code: "c", What: "a", Why: "b"},
			{Severity: ops.SeverityWarning, Code: "d", Subject: ops.Subject{Kind: "queue", Name: "sales"}, Fix: "SELECT 1", SQL: true, Fixable: true, WouldFix: true}}},
			`{"check":"backlog","about":"?","result":"warning","seconds":1,"findings":[{"severity":"note","code":"c","what":"a","why":"b","fixable":false},` +
				`{"severity":"warning","code":"d","subject":{"kind":"queue","name":"sales"},"what":"","why":"","fix":"SELECT 1","fix_is_sql":true,"fixable":true,"would_fix":true}]}`},
	} {
		var got bytes.Buffer
		out := json.NewEncoder(&got)
		out.SetEscapeHTML(false)
		if err := out.Encode(c.of); err != nil || got.String() != c.want+"\n" {
			t.Errorf("%T: %v\n%swant:\n%s", c.of, err, got.String(), c.want)
		}
	}
	escaped, err := json.Marshal(failed)
	if err != nil || !strings.Contains(string(escaped), `T\u003c1\u003e`) {
		t.Errorf("an encoder that escapes HTML: %s, %v", escaped, err)
	}
}

// Bodies and headers that no parser reads, or not every one, do not make JSON that none reads.
func TestJSONOfWhatParsersRefuse(t *testing.T) {
	t.Parallel()
	deep := []byte(strings.Repeat("[", 2000) + strings.Repeat("]", 2000))
	deepest := deep[2000-900 : 2000+900]
	for _, c := range []struct {
		body, headers []byte
		want          string
	}{
		{deepest, []byte(`{"a":"b"}`), `"headers":{"a":"b"},"body":[`},
		{deep, deep, `"headers":"[[`},
		{deep, nil, `"headers":{},"body":"W1tb`},
		{[]byte("\xff"), []byte("[\"[\\\"[\"]"), `"headers":["[\"["],"body":"/w==","body_encoding":"base64"`},
		{[]byte(`{"a":`), nil, `"body_encoding":"base64"`},
	} {
		text, err := json.Marshal([]any{ops.Message{Headers: c.headers, Body: c.body}})
		if err != nil || !json.Valid(text) || !strings.Contains(string(text), c.want) {
			t.Errorf("%.60s: %v, want %s", text, err, c.want)
		}
	}
}
