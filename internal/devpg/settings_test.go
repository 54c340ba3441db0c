//go:build unix

package devpg

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestWithDatabase(t *testing.T) {
	for _, given := range []string{
		"postgres://u:p@example.com:1234/one?sslmode=disable",
		"postgresql://u:p@example.com:1234",
		"postgres://u:p@example.com:1234/one?dbname=two&sslmode=disable",
		"postgres://u:p@/one?host=example.com&port=1234",
		"host=example.com port=1234 user=u password=p dbname=one",
		`host=example.com port=1234 user=u password=p`,
	} {
		for _, name := range []string{"other", "it's 100% o\\d/d?"} {
			config, err := pgx.ParseConfig(withDatabase(given, name))
			if err != nil {
				t.Errorf("%s with %s: %v", given, name, err)
			} else if config.Database != name || config.Host != "example.com" || config.Port != 1234 || config.User != "u" {
				t.Errorf("%s with %s: %s at %s:%d", given, name, config.Database, config.Host, config.Port)
			}
		}
		if withDatabase(given, "") != given {
			t.Errorf("%s changed for no name", given)
		}
	}
}
