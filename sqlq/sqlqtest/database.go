package sqlqtest

import "context"

// TB is what the harness needs of a test: a *testing.T, a *testing.B or what other test frameworks have like them. Name
// names the database.
type TB interface {
	Helper()                           // marks a function that is not where a failure is told
	Name() string                      // of the test
	Logf(format string, args ...any)   // tells something
	Errorf(format string, args ...any) // fails the test, which goes on
	FailNow()                          // ends it
	Cleanup(func())                    // has something done when it has ended
}

func fatalf(t TB, format string, args ...any) {
	t.Helper()
	t.Errorf(format, args...)
	t.FailNow()
}

// Database returns the URL of a new database with a migrated schema "sqlq", which is the test's own. When the test ends,
// and what it has registered with Cleanup since, it is dropped with whatever is connected to it.
//
// The test fails where there is no server, or none that lets it; see the package comment for where servers come from.
func Database(t TB) string {
	t.Helper()
	return databaseWith(t, "sqlq")
}

func databaseWith(t TB, schema string) string {
	t.Helper()
	s, err := theServer()
	if err != nil {
		fatalf(t, "sqlqtest: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), createWithin)
	defer cancel()
	name, err := s.create(ctx, schema, t.Name())
	if err != nil {
		fatalf(t, "sqlqtest: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), dropWithin)
		defer cancel()
		if err := s.DropDatabase(ctx, name); err != nil {
			t.Errorf("sqlqtest: %v", err)
		}
	})
	return s.URL(name)
}
