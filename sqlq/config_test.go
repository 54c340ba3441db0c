package sqlq_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/sqlq/sqlq/sqlq"
)

// docs/configuration.md is made from the comments. Here is held that the defaults which it tells are the true ones.
func TestDocumentedDefaultsAreTrue(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	c, e, r := sqlq.ConfigDefaults(), sqlq.EndpointDefaults(), sqlq.RetryPolicyDefaults()
	var delays []string
	for _, d := range r.Delays {
		delays = append(delays, fmt.Sprint(d.Seconds()))
	}
	last := len(delays) - 1
	for name, standard := range map[string]string{
		"Schema":             fmt.Sprintf("%q", c.Schema),
		"MaxBody":            fmt.Sprintf("%d MiB", c.MaxBody>>20),
		"ReceiveConnections": fmt.Sprint(c.ReceiveConnections),
		"BatchLimit":         fmt.Sprint(c.BatchLimit),
		"HoldLimit":          fmt.Sprintf("%d ms", c.HoldLimit.Milliseconds()),
		"LeaseTime":          fmt.Sprintf("%v s", c.LeaseTime.Seconds()),
		"DrainTimeout":       fmt.Sprintf("%v s", c.DrainTimeout.Seconds()),
		"PollInterval":       fmt.Sprintf("%v s if LISTEN works, as a safety net; %v s if it", sqlq.PollNet.Seconds(), sqlq.PollDeaf.Seconds()),
		"Codecs":             strings.ToUpper(strings.TrimPrefix(c.CodecTypes()[0], "application/")),
		"SlowAfter":          fmt.Sprintf("%v s", e.SlowAfter.Seconds()),
		"Immediate":          fmt.Sprint(r.Immediate),
		"Delays":             strings.Join(delays[:last], ", ") + " and " + delays[last] + " s",
		"Jitter":             fmt.Sprint(r.Jitter),
	} {
		if row := "\n| `" + name + "` | " + standard; !strings.Contains(string(text), row+" ") && !strings.Contains(string(text), row+".") {
			t.Errorf("the default of %s is %s, which docs/configuration.md does not say", name, standard)
		}
	}
}
