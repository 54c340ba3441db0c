package endpoints

import (
	"strings"
	"testing"
	"time"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// A short time with fewer endpoints: nothing is lost, the connections stay as few, and no goroutine is left. It counts the
// goroutines of the process, so no other test runs beside it.
func TestEndpointsComeAndGo(t *testing.T) {
	var log strings.Builder
	r, err := Run(t.Context(), Options{URL: pgtest.Database(t), Duration: 5 * time.Second, Endpoints: 40, Rate: 500, Seed: 1, Log: &log})
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	t.Logf("%+v", *r)
	if err := r.Err(); err != nil {
		t.Errorf("%v\n%s", err, &log)
	}
	if r.Started < 40 || r.Stopped == 0 || r.Handled == 0 {
		t.Errorf("this has shown nothing: %+v", *r)
	}
}
