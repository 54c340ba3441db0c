package sqlq_test

import (
	"testing"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

func TestMain(m *testing.M) {
	beChild() // a process that a crash test started does not come back from here
	pgtest.Main(m)
}
