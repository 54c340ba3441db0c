package cli

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

// A database whose sessions write times and bytes in another way is no other one.
func TestSettingsOfTheDatabase(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	name := pgx.Identifier{conn.Config().Database}.Sanitize()
	for _, sql := range []string{`SELECT sqlq.create_queue('sales')`, `SELECT sqlq.send('sales', 'T', '{"a":1}')`, `SELECT sqlq.send('sales', 'T', '{"a":1}', delay => '1 day 2 hours')`,
		`INSERT INTO sqlq.error (id, queue, endpoint, host, type, body, attempts, sent_at, first_failed_at, error_type, message, fingerprint)
			VALUES (gen_random_uuid(), 'sales', 'sales', 'h', 'T', '{"order":1}', 1, now(), now(), 'e', 'm', 'g')`,
		`ALTER DATABASE ` + name + ` SET datestyle = 'SQL, DMY'`, `ALTER DATABASE ` + name + ` SET intervalstyle = 'sql_standard'`, `ALTER DATABASE ` + name + ` SET bytea_output = 'escape'`,
		`ALTER DATABASE ` + name + ` SET timezone = 'Asia/Kathmandu'`} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range []string{"queue ls", "queue show sales", "queue peek sales", "queue export sales --delayed", "error ls", "error show 1", "error groups", "error replay 1 --yes", "delayed ls",
		"delayed show 1", "delayed reschedule 1 --in 1h", "operation ls", "instance ls", "migrate status", "migrate up", "migrate validate", "migrate down --dry-run", "subscription ls", "route explain T"} {
		for _, set := range []string{"", "&datestyle=German&TimeZone=Asia/Kolkata"} {
			if code, out, said := command(t, "", append([]string{"--database-url", url + set}, strings.Fields(line)...)...); code != 0 && (set == "" || !strings.Contains(said, "not in the error table")) {
				t.Errorf("sqlq %s: exit code %d, %s%s", line, code, out, said)
			}
		}
	}
}
