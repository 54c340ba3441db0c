package ops

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// RoleKinds are the kinds of database roles that Grant knows.
var RoleKinds = []string{"producer", "consumer", "operator", "viewer"}

// Grant says what a database role is to be: a producer sends and publishes, a consumer runs endpoints, an operator does
// everything on messages, a viewer counts and lists. A role may be several.
type Grant struct {
	Role   string   `json:"role"`             // a role of the database
	Kind   string   `json:"kind"`             // one of RoleKinds
	Queues []string `json:"queues,omitempty"` // nil: all, those included that are made later
	Bodies bool     `json:"bodies,omitempty"` // a viewer may see headers and bodies too
	// Events are the types that a consumer or an operator may subscribe these queues to, and so read: instead of those that were
	// granted for them before. Empty and not nil: none.
	Events []string `json:"events,omitempty"` // nil: any
}

// check finds what the database would not say as well.
func (g Grant) check() error {
	switch {
	case g.Role == "":
		return errors.New("no role is named")
	case !slices.Contains(RoleKinds, g.Kind):
		return fmt.Errorf("kind of role %q is not known: there are %s", g.Kind, quoted(RoleKinds))
	case g.Bodies && g.Kind != "viewer":
		return errors.New("bodies are granted to viewers only: consumers and operators see them anyway, producers do not")
	case g.Events != nil && g.Kind != "consumer" && g.Kind != "operator":
		return errors.New("events are granted to consumers and operators only: producers publish any, viewers subscribe no queue")
	}
	return nil
}

// NoRoleError is returned when a database role is named that is not there.
type NoRoleError struct {
	Role string   // that was named
	Near []string // roles with names like it
}

// Error says what happened, where, and what to do about it.
func (e *NoRoleError) Error() string {
	text := fmt.Sprintf("role %q does not exist on this server", e.Role)
	if len(e.Near) > 0 {
		return text + "; there is " + quoted(e.Near)
	}
	return text
}

// Grant gives a role what it needs for its kind. What it has besides it keeps. Only the owner of the schema, or a member of
// that role, can do it. An unknown role is a *NoRoleError, an unknown queue a *NoQueueError; then nothing was granted.
func (o Roles) Grant(ctx context.Context, g Grant) error {
	if err := g.check(); err != nil {
		return err
	}
	return o.granting(ctx, kindGrant, g, func() error {
		return o.store.GrantRole(ctx, o.pool, g.Role, g.Kind, g.Queues, g.Bodies, g.Events)
	})
}

// Revoke takes everything from a role that Grant gave it; with queues only what it has on their tables. Errors are those of
// Grant.
func (o Roles) Revoke(ctx context.Context, role string, queues []string) error {
	return o.granting(ctx, kindRevoke, Grant{Role: role, Queues: queues}, func() error {
		return o.store.RevokeRole(ctx, o.pool, role, queues)
	})
}

// Names returns the names of the server's roles, in their order, those that the server makes itself left out.
func (o Roles) Names(ctx context.Context) ([]string, error) {
	names, err := o.store.Roles(ctx, o.pool)
	if err != nil {
		return nil, fmt.Errorf("list roles: %w", err)
	}
	return names, nil
}

// GrantSQL is the statement that Grant runs.
func (o Roles) GrantSQL(g Grant) (string, error) {
	return o.store.GrantRoleSQL(g.Role, g.Kind, g.Queues, g.Bodies, g.Events), g.check()
}

// RevokeSQL is the statement that Revoke runs.
func (o Roles) RevokeSQL(role string, queues []string) string {
	return o.store.RevokeRoleSQL(role, queues)
}

// granting changes what a role may do, and writes that down.
func (o Roles) granting(ctx context.Context, kind string, g Grant, change func() error) error {
	roles, err := o.store.Roles(ctx, o.pool)
	if err != nil {
		return fmt.Errorf("look for role %q: %w", g.Role, err)
	}
	if !slices.Contains(roles, g.Role) {
		return &NoRoleError{Role: g.Role, Near: near(g.Role, roles)}
	}
	for _, q := range g.Queues {
		if err := o.mustExist(ctx, q); err != nil {
			return err
		}
	}
	if err := change(); err != nil {
		return fmt.Errorf("%s role %q: %w", kind, g.Role, err)
	}
	id, err := o.begin(ctx, kind, g, query.Operation{})
	if err != nil {
		return err
	}
	return o.end(ctx, id, nil)
}
