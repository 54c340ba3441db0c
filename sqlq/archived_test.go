package sqlq_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

const storeArchived = `INSERT INTO sqlq.error (id, status, queue, endpoint, host, type, body, attempts, sent_at, first_failed_at, failed_at, archived_at, error_type, message, fingerprint)
	SELECT gen_random_uuid(), status, 'mine', 'mine', '', 'T', convert_to(repeat('x', size), 'UTF8'), 1, now(), now(), clock_timestamp() - failed, clock_timestamp() - archived, 'E', 'm', 'f'
	FROM generate_series(1, 1500) n, (VALUES
		('archived', 10, interval '3 days', interval '2 days', 1500),
		('archived', 9000000, interval '3 days', interval '2 days', 3), -- more than a round removes
		('archived', 10, interval '3 days', interval '1 hour', 7),
		('failed', 10, interval '3 days', NULL, 11)) v (status, size, failed, archived, most) WHERE n <= most`

// Archived messages are removed when they were kept for their time, and nothing else is.
func TestKeepArchived(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := twoQueues(t, url)
	execSQL(t, admin, storeArchived)
	run(t, open(t, admin, sqlq.Config{KeepArchived: 24 * time.Hour}), receiveLetters("theirs"))
	eventuallyCount(t, admin, 7, `SELECT count(*) FROM sqlq.error WHERE status = 'archived'`)
	if n := count(t, admin, `SELECT count(*) FROM sqlq.error WHERE status = 'archived' AND archived_at < now() - interval '1 day'`); n != 0 {
		t.Errorf("%d are left that were kept for their time", n)
	}
	if n := count(t, admin, `SELECT count(*) FROM sqlq.error WHERE status = 'failed'`); n != 11 {
		t.Errorf("%d failed messages are left, want 11", n)
	}
}

// Without being told so nobody removes them; a role that may not says so once.
func TestArchivedAreKept(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := twoQueues(t, url)
	execSQL(t, admin, storeArchived)
	const all = `SELECT count(*) FROM sqlq.error WHERE status = 'archived'`
	before := count(t, admin, all)
	stop := run(t, open(t, admin, sqlq.Config{LeaseTime: time.Second}), receiveLetters("theirs"))
	beats(t, admin, "theirs")
	stop()
	var said logged
	run(t, open(t, granted(t, url, "consumer", "theirs"), sqlq.Config{LeaseTime: time.Second, KeepArchived: time.Hour, Logger: said.logger()}), receiveLetters("theirs"))
	eventually(t, "the log says it", func() (bool, string) {
		text := said.all()
		return strings.Contains(text, "may not remove archived messages"), text
	})
	if n := count(t, admin, all); n != before {
		t.Errorf("%d archived messages are left of %d", n, before)
	}
}
