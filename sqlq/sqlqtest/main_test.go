package sqlqtest_test

import (
	"testing"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }
