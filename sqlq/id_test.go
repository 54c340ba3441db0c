package sqlq_test

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

const someUUID = "01890a5d-ac96-774b-bcce-b302099a8057"

// An ID is a UUID's text in JSON, also as the key of a map, and in logs; and it comes back, in the old form too.
func TestIDIsTextInJSONAndLogs(t *testing.T) {
	t.Parallel()
	id, err := sqlq.ParseID(someUUID)
	if err != nil {
		t.Fatal(err)
	}
	type order struct {
		ID   sqlq.ID
		None *sqlq.ID
		Map  map[sqlq.ID]int
	}
	want := fmt.Sprintf(`{"ID":%q,"None":null,"Map":{%[1]q:1}}`, someUUID)
	encoded, err := json.Marshal(order{ID: id, Map: map[sqlq.ID]int{id: 1}})
	if err != nil || string(encoded) != want {
		t.Errorf("JSON: %s, %v, want %s", encoded, err, want)
	}
	var back order
	if err := json.Unmarshal(encoded, &back); err != nil || back.ID != id || back.None != nil || back.Map[id] != 1 {
		t.Errorf("read back: %+v, %v", back, err)
	}
	old, _ := json.Marshal([16]byte(id))
	for text, good := range map[string]bool{
		string(old): true, `"01890A5D-AC96-774B-BCCE-B302099A8057"`: true, `null`: true,
		`""`: false, `"x"`: false, `[1,2]`: false, `[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,256]`: false, `{}`: false, `1`: false, `[]`: false,
		`["1",2,3,4,5,6,7,8,9,10,11,12,13,14,15,-1]`: false,
	} {
		read := id
		if err := json.Unmarshal([]byte(text), &read); (err == nil) != good || read != id {
			t.Errorf("%s: %v, %v, want good %v", text, read, err, good)
		}
	}
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "message", id)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "message", id)
	for _, part := range []string{`"message":"` + someUUID + `"`, `message=` + someUUID} {
		if !bytes.Contains(out.Bytes(), []byte(part)) {
			t.Errorf("the log has %s, want %s in it", out.String(), part)
		}
	}
}

// An ID goes to the database as a uuid and comes back from it, alone and in arrays, by pgx in each of its modes and by database/sql.
func TestIDInDatabase(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pool, ctx := poolOn(t, url), t.Context()
	id, _ := sqlq.ParseID(someUUID)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		var back sqlq.ID
		var pointer, none *sqlq.ID
		var text string
		err := pool.QueryRow(ctx, `SELECT $1::uuid, $1::uuid, NULL::uuid, $1::uuid::text`, mode, id).Scan(&back, &pointer, &none, &text)
		if err != nil || back != id || pointer == nil || *pointer != id || none != nil || text != someUUID {
			t.Errorf("%v: %v, %v, %v, %q, %v", mode, back, pointer, none, text, err)
		}
		if err := pool.QueryRow(ctx, `SELECT NULL::uuid`, mode).Scan(&back); err == nil {
			t.Errorf("%v: null was scanned into an ID", mode)
		}
		if err := pool.QueryRow(ctx, `SELECT $1::text`, mode, id).Scan(&back); err != nil || back != id {
			t.Errorf("%v, as text: %v, %v", mode, back, err)
		}
	}
	var all []sqlq.ID
	if err := pool.QueryRow(ctx, `SELECT $1::uuid[] || $2::uuid`, []sqlq.ID{id}, id).Scan(&all); err != nil || len(all) != 2 || all[0] != id || all[1] != id {
		t.Errorf("arrays: %v, %v", all, err)
	}
	if _, err := pool.CopyFrom(ctx, pgx.Identifier{"sqlq", "history"}, []string{"message", "what", "queue"}, pgx.CopyFromRows([][]any{{id, "edit", "q"}})); err != nil {
		t.Errorf("COPY: %v", err)
	}
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var back sqlq.ID
	var null sql.Null[sqlq.ID]
	if err := db.QueryRowContext(ctx, `SELECT $1::uuid, NULL::uuid`, id).Scan(&back, &null); err != nil || back != id || null.Valid {
		t.Errorf("database/sql: %v, %v, %v", back, null, err)
	}
	for _, from := range []any{someUUID, []byte(someUUID), id[:]} {
		back = sqlq.ID{}
		if err := back.Scan(from); err != nil || back != id {
			t.Errorf("Scan of %T: %v, %v", from, back, err)
		}
	}
	for _, from := range []any{nil, 1, "x", []byte{1}} {
		if err := back.Scan(from); err == nil || back != id {
			t.Errorf("Scan of %v: %v, %v, want an error", from, back, err)
		}
	}
}
