package ops

import (
	"context"
	"fmt"
)

// checkPinned finds functions that look for their tables elsewhere than in their own schema: it was renamed, or copied from
// another.
func (e *examination) checkPinned(ctx context.Context) (found []Finding, err error) {
	if e.missing() {
		return nil, nil
	}
	strayed, err := e.store.StrayedFunctions(ctx, e.pool)
	for _, s := range strayed {
		what := fmt.Sprintf("%s of schema %q look for their tables in %q", plural(s.N, "function"), e.store.Name(), s.Path)
		if s.N == 1 {
			what = fmt.Sprintf("1 function of schema %q looks for its tables in %q", e.store.Name(), s.Path)
		}
		found = append(found, problem(foundFunctionsStray, Subject{"search path", s.Path}, what+"; was the schema renamed, or copied?",
			"sending by SQL, publishing, moving what is due and granting fail, or work on another schema", e.store.PinFunctionsSQL()).inSQL().
			by(e.server.Superuser || e.server.Role == e.owner, "search_path", func(ctx context.Context) (string, error) {
				return "pinned the functions to their schema", e.store.PinFunctions(ctx, e.pool)
			}))
	}
	return found, err
}
