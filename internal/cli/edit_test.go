package cli

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// On a terminal an edit that cannot be taken comes back to the editor, as it was left; who has enough keeps the text.
func TestEditAgain(t *testing.T) {
	url := pgtest.Database(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), `INSERT INTO sqlq.error (id, queue, endpoint, host, type, body, attempts, sent_at, first_failed_at, error_type, message, fingerprint)
		VALUES (gen_random_uuid(), 'sales', 'sales', 'h', 'T', '{"order":1}', 1, now(), now(), 'e', 'm', 'g')`); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Setenv("VISUAL", "")
	t.Setenv("EDITOR", "sh "+filepath.Join(dir, "editor"))
	// What has a comma too many gets a bracket that fits; what has none gets the comma.
	if err := os.WriteFile(filepath.Join(dir, "editor"), []byte(`if grep -q ',,' "$1"; then sed -i 's/: 1,,/: 2/' "$1"; else sed -i 's/: 1$/: 1,,/' "$1"; fi`), 0o600); err != nil {
		t.Fatal(err)
	}
	edit := func(answer string) (code int, said string) {
		in, typed, err := os.Pipe() // a file, which the editor is given as it is
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		_, _ = typed.WriteString(answer)
		typed.Close()
		var out, stderr bytes.Buffer
		code = run(t.Context(), []string{"--database-url", url, "error", "edit", "1"},
			streams{in: in, out: &out, err: &stderr, inTerminal: true, outTerminal: true, errTerminal: true, width: 80})
		return code, stderr.String()
	}
	kept := func() []string {
		files, _ := filepath.Glob(filepath.Join(dir, "sqlq-error-1-*"))
		return files
	}
	code, said := edit("n\n")
	if code != exitError || !strings.Contains(said, "not JSON") || !strings.Contains(said, "Edit again?") || len(kept()) != 1 || !strings.Contains(said, "kept in "+kept()[0]) {
		t.Fatalf("given up: exit code %d, %s, kept %v", code, said, kept())
	}
	if text, err := os.ReadFile(kept()[0]); err != nil || !strings.Contains(string(text), ": 1,,") {
		t.Errorf("the text is lost: %s, %v", text, err)
	}
	code, said = edit("y\n")
	if code != 0 || strings.Count(said, "Edit again?") != 1 || !strings.Contains(said, "edited failed message 1") || len(kept()) != 1 {
		t.Errorf("again: exit code %d, %s, kept %v", code, said, kept())
	}
	var body string
	if err := conn.QueryRow(t.Context(), `SELECT convert_from(body, 'UTF8') FROM sqlq.error`).Scan(&body); err != nil || body != `{"order":2}` {
		t.Errorf("body %s, err %v", body, err)
	}
}

// A text to edit that is left alone reads as the message that it was made of.
func FuzzEditable(f *testing.F) {
	for _, s := range []string{"", "a", "a b", "é", `"quoted"`, "#", "# x", ":", "a: b", "two\nlines", "tab\t", " blank ", "\x1b[31m", "\u202e", "{}", "[1, 2]", `"x"`, "null", "\xff", "\n\n", "\r\n", "\x00"} {
		f.Add(s, s, []byte(s))
	}
	f.Fuzz(func(t *testing.T, name, value string, body []byte) {
		headers := map[string]string{"sqlq-own": value, "tenant": value}
		if strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == "" && name != "" && !strings.HasPrefix(strings.ToLower(name), "sqlq-") {
			headers[name] = value
		}
		text, err := json.Marshal(headers)
		if err != nil {
			t.Fatal(err)
		}
		m := ops.FailedMessage{Number: 1, Queue: name, Error: value, Headers: text, Body: body}
		_, others, _ := ops.SplitHeaders(m.Headers)
		e, err := readEdited(m, editable(m))
		if err != nil || !maps.Equal(e.Headers, others) {
			t.Fatalf("headers %v read as %v, err %v, from\n%s", others, e.Headers, err, editable(m))
		}
		same := bytes.Equal(e.Body, body)
		if bodyIsJSON(body) && e.Body == nil {
			same = true // it is left as it is
		} else if bodyIsJSON(body) {
			var was, is bytes.Buffer
			same = json.Compact(&was, body) == nil && json.Compact(&is, e.Body) == nil && was.String() == is.String()
		}
		if !same {
			t.Errorf("body %q reads as %q", body, e.Body)
		}
	})
}
