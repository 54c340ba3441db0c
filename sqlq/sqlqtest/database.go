package sqlqtest

import "context"

// TB is what the harness needs of a test: a *testing.T, a *testing.B, or the equivalent of another test framework. Name is used
// to name the database.
type TB interface {
	Helper()                           // marks a function that is not reported as the place of a failure
	Name() string                      // of the test
	Logf(format string, args ...any)   // logs
	Errorf(format string, args ...any) // fails the test, which continues
	FailNow()                          // ends it
	Cleanup(func())                    // registers a function to be called when the test has ended
}

func fatalf(t TB, format string, args ...any) {
	t.Helper()
	t.Errorf(format, args...)
	t.FailNow()
}

// Database returns the URL of a new database with a migrated schema "sqlq", which belongs to this test alone. It is dropped when
// the test and the cleanups it has registered since have ended, even if somebody is still connected to it.
//
// The test fails if there is no server, or none that allows this; the package comment says where servers come from.
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
