package sqlqtest

import (
	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/internal/handmade"
)

// Decide returns what a retry policy, with its defaults, makes of a message whose attempt, counted from 1, has ended with that error: its
// own Decide, Unrecoverable, RetryAfter and GiveBack included. Delays are not varied by the Jitter. A policy that is not valid, and a Decide
// that panics or returns what is not valid, end the test.
func Decide(t TB, policy sqlq.RetryPolicy, attempt int, err error) sqlq.Decision {
	t.Helper()
	decision, fault := handmade.Decide(policy, attempt, err)
	if fault != nil {
		fatalf(t, "sqlqtest: %v", fault)
	}
	return decision.(sqlq.Decision)
}

// isGivenBack reports whether a handler has given its message back with that error.
func isGivenBack(err error) bool {
	decision, fault := handmade.Decide(sqlq.RetryPolicy{}, 1, err)
	return fault == nil && decision.(sqlq.Decision).Outcome == sqlq.OutcomeWait
}
