package sqlq_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
)

// wireFiles are messages as releases have written them, a folder for each release. What is there stays as it is and is read for
// ever; a release that writes something new gets a file of its own (go test ./sqlq -run TestWireFiles -update, and read it).
const wireFiles = "../testdata/wire"

// wireRelease is the folder of what is written today.
const wireRelease = "1"

// wireFile is one message as it lies in the database, and what its handler gets.
type wireFile struct {
	About    string                     `json:"about"`
	Table    string                     `json:"table"`
	Row      map[string]json.RawMessage `json:"row"` // its columns; a body is text, or \x and hexadecimal digits
	Received wireReceived               `json:"received"`
}

type wireReceived struct {
	Attempt        int             `json:"attempt"`
	Type           string          `json:"type"`
	Headers        sqlq.Headers    `json:"headers"`
	CorrelationID  string          `json:"correlation_id"`
	ConversationID string          `json:"conversation_id"`
	Message        json.RawMessage `json:"message"`
}

type wirePlaceOrder struct {
	Order int
	Note  string
}

// MessageType implements sqlq.Message.
func (wirePlaceOrder) MessageType() string { return "shop.PlaceOrder" }

type wireOrderPlaced struct{ Order int }

// MessageType implements sqlq.Message.
func (wireOrderPlaced) MessageType() string { return "shop.OrderPlaced" }

// IsEvent implements sqlq.Event.
func (wireOrderPlaced) IsEvent() {}

// wireCodec writes bodies that are no text: JSON with all bits turned over.
var wireCodec = sqlq.Codec{
	ContentType: "application/x-inverted; version=1",
	Encodes:     func(any) bool { return false }, // but where a test has it otherwise
	Encode: func(message any) ([]byte, error) {
		text, err := json.Marshal(message)
		return inverted(text), err
	},
	Decode: func(body []byte, into any) error { return json.Unmarshal(inverted(body), into) },
}

func inverted(b []byte) []byte {
	turned := make([]byte, len(b))
	for i := range b {
		turned[i] = ^b[i]
	}
	return turned
}

// wireEndpoint handles what the files hold.
func wireEndpoint(handle func(in *sqlq.Incoming, message any) error) sqlq.Endpoint {
	return sqlq.Endpoint{Name: "shop", Handlers: []sqlq.Handler{
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[wirePlaceOrder]) error { return handle(d.Incoming, d.Message) }),
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[wireOrderPlaced]) error { return handle(d.Incoming, d.Message) }),
	}}
}

// Each message that a release has written, wherever it lay, is received as it was when that release was made.
func TestWireFilesAreRead(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('shop')`)
	names, err := filepath.Glob(wireFiles + "/*/*.json")
	if err != nil || len(names) < len(wireCases) {
		t.Fatalf("%d files, %v", len(names), err)
	}
	files := map[string]*wireFile{} // by message id
	for _, name := range names {
		f := readWireFile(t, name)
		id := f.text("id")
		if files[id] != nil {
			t.Fatalf("%s: message %s is in another file, too", name, id)
		}
		files[id] = f
		f.insert(t, pool)
	}
	execSQL(t, pool, `UPDATE sqlq.delayed SET due_at = now()`)
	if n := count(t, pool, `SELECT sqlq.replay('shop')`); n == 0 {
		t.Error("no file holds a failed message")
	}
	var mu sync.Mutex
	got := map[string]wireReceived{}
	c := open(t, pool, sqlq.Config{Codecs: []sqlq.Codec{wireCodec}})
	run(t, c, wireEndpoint(func(in *sqlq.Incoming, message any) error {
		mu.Lock()
		defer mu.Unlock()
		id := in.ID.String()
		got[id] = received(in, message)
		if f := files[id]; f != nil {
			if sent, err := time.Parse(time.RFC3339Nano, f.text("sent_at")); err != nil || !sent.Equal(in.SentAt) {
				t.Errorf("%s was sent at %v, want %v, %v", f.About, in.SentAt, sent, err)
			}
		}
		return nil
	}))
	eventually(t, "all are received", func() (bool, string) {
		mu.Lock()
		defer mu.Unlock()
		return len(got) == len(files), fmt.Sprintf("%d of %d", len(got), len(files))
	})
	for id, f := range files {
		if f.Table == "error" { // which replay has moved
			f.Received.Headers["sqlq-first-failed-at"] = got[id].Headers["sqlq-first-failed-at"]
		}
		if is, want := asJSON(t, got[id]), asJSON(t, f.Received); is != want {
			t.Errorf("%s: received\n%s\nwant\n%s", f.About, is, want)
		}
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.error`); n > 0 {
		t.Errorf("%d have failed", n)
	}
}

func received(in *sqlq.Incoming, message any) wireReceived {
	text, _ := json.Marshal(message)
	return wireReceived{Attempt: in.Attempt, Type: in.Type, Headers: in.Headers, CorrelationID: in.CorrelationID, ConversationID: in.ConversationID, Message: text}
}

// What the library writes today is what the files hold, but for ids, times and names of machines.
func TestWireFilesAreWritten(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('shop'), sqlq.create_queue('desk')`)
	execSQL(t, pool, `INSERT INTO sqlq.subscription (type, queue) VALUES ('shop.OrderPlaced', 'shop')`)
	for _, w := range wireCases {
		for i, write := range w.ways {
			execSQL(t, pool, `TRUNCATE sqlq.q_shop, sqlq.delayed, sqlq.leased, sqlq.error`)
			done := write(t, pool)
			is := wireFile{About: w.about, Table: w.table, Row: storedRow(t, pool, w.table)}
			if done != nil {
				done()
			}
			name := filepath.Join(wireFiles, wireRelease, w.name+".json")
			if *update && i == 0 {
				is.Received = receivedOf(t, pool, is)
				if _, err := os.Stat(name); errors.Is(err, os.ErrNotExist) {
					is.write(t, name)
				}
			}
			want := readWireFile(t, name)
			if want.Table != is.Table {
				t.Errorf("%s is in table %s, want %s", w.name, is.Table, want.Table)
			}
			for column, value := range want.Row { // what later releases add does not harm
				if column == "error" { // a text for operators
					value, is.Row[column] = json.RawMessage(fmt.Sprint(string(value) != "null")), json.RawMessage(fmt.Sprint(string(is.Row[column]) != "null"))
				}
				if got := masked(is.Row[column]); got != masked(value) {
					t.Errorf("%s, way %d: column %s is %s, want %s (masked)", w.name, i+1, column, got, masked(value))
				}
			}
		}
	}
}

var (
	uuidV7    = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`)
	timestamp = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|\+00:00)`)
	waited    = regexp.MustCompile(`("sqlq-waited":)"[^"]*"`)
)

// masked is a column's value without what differs each time.
func masked(value json.RawMessage) string {
	text := string(value)
	text = uuidV7.ReplaceAllString(text, "A-UUID-V7")
	text = waited.ReplaceAllString(text, `$1"A-DURATION"`)
	return timestamp.ReplaceAllString(text, "A-TIME$2")
}

// storedRow returns the only row of a table, of those columns that say something of the message.
func storedRow(t *testing.T, pool *pgxpool.Pool, table string) (row map[string]json.RawMessage) {
	t.Helper()
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	var text string
	if _, err := conn.Exec(t.Context(), `SET timezone = 'UTC'`); err != nil {
		t.Fatal(err)
	}
	if err := conn.QueryRow(t.Context(), `SELECT to_json(r)::text FROM sqlq.`+table+` r`).Scan(&text); err != nil {
		t.Fatalf("%s: %v", table, err)
	}
	if err := json.Unmarshal([]byte(text), &row); err != nil {
		t.Fatal(err)
	}
	for _, column := range []string{"seq", "lease", "instance", "leased_at"} { // of the place, not of the message
		delete(row, column)
	}
	var body string
	if err := json.Unmarshal(row["body"], &body); err != nil {
		t.Fatal(err)
	}
	if b, err := hex.DecodeString(strings.TrimPrefix(body, `\x`)); err == nil && utf8.Valid(b) {
		row["body"], _ = json.Marshal(string(b))
	}
	if row["host"] != nil {
		row["host"] = json.RawMessage(`"host"`)
	}
	return row
}

func readWireFile(t *testing.T, name string) *wireFile {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatalf("%v (go test ./sqlq -run TestWireFilesAreWritten -update writes it)", err)
	}
	f := &wireFile{}
	if err := json.Unmarshal(text, f); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for column, value := range f.Row {
		var compact bytes.Buffer
		if err := json.Compact(&compact, value); err != nil {
			t.Fatal(err)
		}
		f.Row[column] = compact.Bytes()
	}
	return f
}

func (f *wireFile) write(t *testing.T, name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(asJSON(t, f)), 0o666); err != nil {
		t.Fatal(err)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "\t")
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// text is a column that is a string.
func (f *wireFile) text(column string) (s string) {
	_ = json.Unmarshal(f.Row[column], &s)
	return s
}

// insert puts the row into the database.
func (f *wireFile) insert(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	row := map[string]any{}
	var columns []string
	for column, value := range f.Row {
		columns = append(columns, pgx.Identifier{column}.Sanitize())
		row[column] = value
	}
	if body := f.text("body"); !strings.HasPrefix(body, `\x`) {
		row["body"] = `\x` + hex.EncodeToString([]byte(body))
	}
	if f.Table == "leased" { // by nobody who lives
		columns, row["instance"], row["seq"] = append(columns, "instance", "seq"), -1, 1
	}
	if f.Table == "delayed" {
		row["due_at"] = cmp.Or(f.text("due_at"), "now")
	}
	list := strings.Join(columns, ", ")
	execSQL(t, pool, fmt.Sprintf(`INSERT INTO sqlq.%[1]s (%[2]s) SELECT %[2]s FROM json_populate_record(NULL::sqlq.%[1]s, $1::text::json)`, f.Table, list), asJSON(t, row))
}

// receivedOf receives a row, for a new file.
func receivedOf(t *testing.T, pool *pgxpool.Pool, f wireFile) wireReceived {
	t.Helper()
	execSQL(t, pool, `TRUNCATE sqlq.q_shop, sqlq.delayed, sqlq.leased, sqlq.error`)
	f.insert(t, pool)
	execSQL(t, pool, `UPDATE sqlq.delayed SET due_at = now()`)
	execSQL(t, pool, `SELECT sqlq.replay('shop')`)
	got := make(chan wireReceived, 1)
	stop := run(t, open(t, pool, sqlq.Config{Codecs: []sqlq.Codec{wireCodec}}), wireEndpoint(func(in *sqlq.Incoming, message any) error {
		got <- received(in, message)
		return nil
	}))
	defer stop()
	select {
	case r := <-got:
		return r
	case <-time.After(patience):
		t.Fatalf("%s: it is not received", f.About)
		return wireReceived{}
	}
}
