package sqlq_test

import (
	"strings"
	"testing"

	"github.com/sqlq/sqlq/sqlq"
)

// A sequence that is behind its rows, as after a restore, is named with what sets it right.
func TestSendWithASequenceThatIsBehind(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	if err := c.Send(t.Context(), chore{}); err != nil {
		t.Fatal(err)
	}
	execSQL(t, pool, `SELECT setval('sqlq.s_house', 1, false)`)
	if err := c.Send(t.Context(), chore{}); err == nil || !strings.Contains(err.Error(), "sqlq doctor --fix --schema sqlq") {
		t.Errorf("got %v, want what to do", err)
	}
}
