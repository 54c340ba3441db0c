package sqlq_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// docBlock is what stands between two fences of a Markdown file.
type docBlock struct {
	language string
	line     int
	text     string
}

func docBlocks(t *testing.T, path string) (blocks []docBlock) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var open *docBlock
	for i, line := range strings.Split(string(text), "\n") {
		language, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open == nil:
			open = &docBlock{language: language, line: i + 1}
		case fence:
			blocks = append(blocks, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		}
	}
	if open != nil {
		t.Fatalf("%s:%d: the block is not closed", path, open.line)
	}
	return blocks
}

// Every example of docs/sql.md runs, and returns what stands beside it; every signature is that of the database; the
// statements in other languages' programs and in YAML can be prepared.
func TestSQLDocument(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	blocks := docBlocks(t, "../docs/sql.md")
	// The roles of the document get names of their own: roles belong to the whole server.
	url := pool.Config().ConnString()
	for _, name := range []string{"shop", "night_shift", "autoscaler"} {
		role, _ := newRole(t, url, name)
		for i := range blocks {
			blocks[i].text = strings.ReplaceAll(blocks[i].text, "'"+name+"'", quoteLiteral(role))
		}
	}
	execSimple(t, pool, `CREATE SCHEMA cron;
		CREATE FUNCTION cron.schedule(name text, schedule text, command text) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN EXECUTE command; RETURN 1; END $$`)
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	ran := 0
	for _, b := range blocks {
		switch b.language {
		case "sql":
			ran++
			runDocument(t, conn.Conn(), b)
		case "text":
			for _, signature := range strings.Split(strings.TrimSpace(b.text), "\n") {
				holdSignature(t, pool, signature)
			}
		case "python", "ruby", "yaml":
			prepareDocument(t, conn.Conn(), b)
		default:
			t.Errorf("docs/sql.md:%d: nothing holds a block of %q", b.line, b.language)
		}
	}
	for _, name := range []string{"send", "send_many", "publish", "backlog", "replay", "cancel", "pause", "resume", "create_queue", "drop_queue", "grant_role", "revoke_role"} {
		if !slices.ContainsFunc(blocks, func(b docBlock) bool {
			return b.language == "text" && strings.Contains("\n"+b.text, "\n"+name+"(")
		}) {
			t.Errorf("docs/sql.md does not describe %s", name)
		}
	}
	for sql, want := range map[string]int{
		`SELECT count(*) FROM sqlq.q_audit`:                                    2, // of publish itself and of the trigger
		`SELECT count(*) FROM sqlq.q_billing WHERE type = 'billing.Settle'`:    1,
		`SELECT count(*) FROM sqlq.q_sales WHERE type = 'sales.SendReminders'`: 1,
	} {
		if got := count(t, pool, sql); got != want {
			t.Errorf("%s: %d, want %d", sql, got, want)
		}
	}
	if ran < 10 {
		t.Errorf("%d blocks of SQL ran", ran)
	}
}

// runDocument runs the statements of a block and compares what they return with the comments behind them, in their order.
func runDocument(t *testing.T, conn *pgx.Conn, b docBlock) {
	t.Helper()
	results, err := conn.PgConn().Exec(t.Context(), b.text).ReadAll()
	if err != nil {
		t.Errorf("docs/sql.md:%d: %v\n%s", b.line, err, b.text)
		return
	}
	var got []string
	for _, r := range results {
		if len(r.Rows) > 0 {
			got = append(got, string(r.Rows[0][0]))
		}
	}
	for _, m := range regexp.MustCompile(`(?m); -- (.+)$`).FindAllStringSubmatch(b.text, -1) {
		i := slices.Index(got, m[1])
		if i < 0 {
			t.Errorf("docs/sql.md:%d: %q is not what it returns: %q", b.line, m[1], got)
			continue
		}
		got = got[i+1:]
	}
}

// holdSignature compares a line such as "f(a text) RETURNS bigint" with the function in the database.
func holdSignature(t *testing.T, pool *pgxpool.Pool, signature string) {
	t.Helper()
	name, _, _ := strings.Cut(signature, "(")
	var want string
	err := pool.QueryRow(t.Context(), `SELECT format('%s(%s) RETURNS %s', proname, regexp_replace(pg_get_function_arguments(oid), 'DEFAULT NULL::[a-z\[\]]+', 'DEFAULT NULL', 'g'),
		pg_get_function_result(oid)) FROM pg_proc WHERE pronamespace = 'sqlq'::regnamespace AND proname = $1`, name).Scan(&want)
	if err != nil || signature != want {
		t.Errorf("docs/sql.md says\n%s\nit is\n%s %v", signature, want, err)
	}
}

// prepareDocument prepares the statements that stand between quotation marks in a program.
func prepareDocument(t *testing.T, conn *pgx.Conn, b docBlock) {
	t.Helper()
	found := regexp.MustCompile(`"((?:SELECT|INSERT) [^"]+)"`).FindAllStringSubmatch(b.text, -1)
	if len(found) == 0 {
		t.Errorf("docs/sql.md:%d: there is no statement in the %s", b.line, b.language)
	}
	for _, m := range found {
		sql := m[1]
		for n := 1; strings.Contains(sql, "%s"); n++ {
			sql = strings.Replace(sql, "%s", fmt.Sprintf("$%d", n), 1)
		}
		if _, err := conn.Prepare(context.WithoutCancel(t.Context()), sql, sql); err != nil {
			t.Errorf("docs/sql.md:%d: %v\n%s", b.line, err, sql)
		}
	}
}
