package ops

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// marks are the privileges by which a role is taken for one of a kind, if its purpose is not given: no other kind
// has them, but operators what producers have.
var marks = []query.Privilege{
	{Kind: "operator", Name: "DELETE", On: "table", Object: "error"},
	{Kind: "consumer", Name: "EXECUTE", On: "function", Object: "sweep_expired"},
	{Kind: "producer", Name: "EXECUTE", On: "function", Object: "send"},
	{Kind: "viewer", Name: "SELECT", On: "column", Object: "error", Column: "seq"},
}

// lacksRights are the kinds of finding by what a role is to be.
var lacksRights = map[string]FindingKind{
	"producer": foundProducerLacksRights, "consumer": foundConsumerLacksRights,
	"operator": foundOperatorLacksRights, "viewer": foundViewerLacksRights,
}

// maxNamed is how many privileges or queues a finding names.
const maxNamed = 6

func (e *examination) checkGrants(ctx context.Context) (found []Finding, err error) {
	role := e.server.Role
	kinds, err := e.kinds(ctx)
	if err != nil {
		return nil, err
	}
	if len(kinds) == 0 {
		return []Finding{problem(foundRoleWithoutPart, Subject{"role", role}, fmt.Sprintf("role %q has no part in schema %q", role, e.store.Name()),
			"it can neither send nor receive nor look", e.grantCommand(role, "KIND", nil)+", where KIND is "+strings.Join(RoleKinds, ", "))}, nil
	}
	for _, kind := range kinds {
		lacks, err := e.store.Lacks(ctx, e.pool, privileges(kind), e.Queues)
		if err != nil {
			return found, err
		}
		of, everything := e.Queues, e.Queues == nil
		if everything { // a role of some queues is not meant to have what belongs to those of all
			named := slices.ContainsFunc(lacks, func(l query.Lacking) bool { return l.Object == "ready" })
			if named {
				found, err = e.lackOfSome(ctx, kind, lacks, found)
				if err != nil {
					return found, err
				}
				continue
			}
		} else {
			lacks = slices.DeleteFunc(lacks, func(l query.Lacking) bool { return l.AllOnly })
		}
		if len(lacks) > 0 {
			found = append(found, e.lack(kind, lacks, of))
		}
	}
	return found, nil
}

// lackOfSome reports what a role lacks that is of named queues: of those on which it has something.
func (e *examination) lackOfSome(ctx context.Context, kind string, lacks []query.Lacking, found []Finding) ([]Finding, error) {
	all := privileges(kind)
	onQueues := slices.DeleteFunc(slices.Clone(all), func(p query.Privilege) bool { return !strings.HasPrefix(p.Object, "q_") })
	none := map[string]int{} // queues → how many privileges lack
	for _, l := range lacks {
		if strings.HasPrefix(l.Object, "q_") {
			for _, q := range l.Queues {
				none[q]++
			}
		}
	}
	var its []string
	for _, q := range e.queues {
		if none[q] < len(onQueues) {
			its = append(its, q)
		}
	}
	if len(its) == 0 && len(e.queues) > 0 {
		return append(found, e.lack(kind, lacks, nil)), nil
	}
	if e.Kind != "" && len(its) < len(e.queues) {
		found = append(found, note(foundRoleOfSomeQueues, Subject{"role", e.server.Role}, fmt.Sprintf("role %q is %s of %d of %d queues: %s", e.server.Role, article(kind), len(its), len(e.queues), some(its)),
			"of the others it has nothing", e.grantCommand(e.server.Role, kind, nil)))
	}
	of, err := e.store.Lacks(ctx, e.pool, slices.DeleteFunc(all, func(p query.Privilege) bool { return p.AllOnly }), its)
	if err == nil && len(of) > 0 {
		found = append(found, e.lack(kind, of, its))
	}
	return found, err
}

// lack tells of privileges that lack to a role for being of a kind.
func (e *examination) lack(kind string, lacks []query.Lacking, queues []string) Finding {
	var names []string
	for _, l := range lacks {
		name := l.Name + " on " + l.On + " " + l.Object
		switch {
		case l.On == "schema":
			name = l.Name + " on schema " + e.store.Name()
		case l.On == "column":
			name = l.Name + " (" + l.Column + ") on table " + l.Object
		}
		if strings.HasSuffix(l.Object, "*") {
			name = strings.TrimSuffix(name, "*") + some(l.Queues)
			if len(l.Queues) > 1 {
				name = strings.TrimSuffix(strings.TrimSuffix(name, some(l.Queues)), l.Object[:2])
				name += fmt.Sprintf("of %d queues (%s)", len(l.Queues), some(l.Queues))
			}
		}
		names = append(names, name)
	}
	return problem(lacksRights[kind], Subject{"role", e.server.Role}, fmt.Sprintf("role %q lacks what %s needs: %s", e.server.Role, article(kind), some(names)),
		"what needs it fails; a role keeps what it was granted when a newer schema or another owner's queue asks for more",
		e.grantCommand(e.server.Role, kind, queues))
}

// kinds returns what the role is to be, as somebody said or as it looks.
func (e *examination) kinds(ctx context.Context) (kinds []string, err error) {
	if e.Kind != "" {
		return []string{e.Kind}, nil
	}
	lacks, err := e.store.Lacks(ctx, e.pool, marks, nil)
	if err != nil {
		return nil, err
	}
	for _, m := range marks {
		lacking := slices.ContainsFunc(lacks, func(l query.Lacking) bool { return l.Kind == m.Kind })
		if !lacking && !(m.Kind == "producer" || m.Kind == "viewer") || !lacking && !slices.Contains(kinds, "operator") {
			kinds = append(kinds, m.Kind)
		}
	}
	return kinds, nil
}

// privileges returns what a kind of role needs.
func privileges(kind string) (all []query.Privilege) {
	for _, p := range query.Privileges {
		if p.Kind == kind {
			all = append(all, p)
		}
	}
	return all
}

func (e *examination) grantCommand(role, kind string, queues []string) string {
	command := "sqlq grant " + shellWord(role) + " " + kind
	for _, q := range queues {
		command += " --queue " + shellWord(q)
	}
	return command + inSchema(e.store.Name())
}

func (e *examination) checkRowSecurity(ctx context.Context) (found []Finding, err error) {
	tables, err := e.store.RowSecurity(ctx, e.pool)
	if err != nil {
		return nil, err
	}
	for _, t := range tables {
		switch {
		case t.Open:
			found = append(found, problem(foundRowSecurityOff, ofTable(t.Table), fmt.Sprintf("row security of table %s is off", t.Table),
				"a role that was granted some queues reads and changes the messages of all", e.store.EnableRowSecuritySQL(t.Table)).inSQL())
		case t.Closed:
			found = append(found, problem(foundRowSecurityOn, ofTable(t.Table), fmt.Sprintf("row security of %s is on, which the migrations do not do", tableName(t.Table)),
				"for roles that no policy of it lets see its rows it is empty: its messages are neither listed nor handled, and nothing says so. Some platforms switch it on for each new table, by an event trigger",
				e.store.DisableRowSecuritySQL(t.Table)).inSQL())
		default:
			found = append(found, problem(foundRowSecurityForced, ofTable(t.Table), fmt.Sprintf("row security of table %s binds its owner too (FORCE)", t.Table),
				"what moves messages of all queues runs as the owner, and passes over those that it cannot see", e.store.EnableRowSecuritySQL(t.Table)).inSQL())
		}
	}
	foreign, err := e.store.ForeignTables(ctx, e.pool, e.owner)
	for _, t := range foreign {
		found = append(found, problem(foundOwnerDiffers, ofTable(t.Name), fmt.Sprintf("table %s belongs to %q, the others to %q", t.Name, t.Owner, e.owner),
			"what runs as the owner, such as moving delayed messages and publishing, cannot use it", e.store.OwnSQL(t.Name, e.owner)).inSQL())
	}
	switch {
	case e.server.Role == e.owner:
	case e.server.Superuser:
		found = append(found, note(foundRoleSuperuser, Subject{"role", e.server.Role}, fmt.Sprintf("role %q is a superuser", e.server.Role), "no grant and no row security limits what is done here", ""))
	case e.server.Bypass:
		found = append(found, warning(foundRoleBypassesRowSecurity, Subject{"role", e.server.Role}, fmt.Sprintf("role %q has BYPASSRLS", e.server.Role),
			"it sees and changes the messages of all queues, whichever it was granted", fmt.Sprintf("ALTER ROLE %s NOBYPASSRLS", ident(e.server.Role))).inSQL())
	}
	return found, err
}

// some names the first few.
func some(names []string) string {
	if len(names) <= maxNamed {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s, and %d more", strings.Join(names[:maxNamed], ", "), len(names)-maxNamed)
}

func article(kind string) string {
	if kind == "operator" {
		return "an operator"
	}
	return "a " + kind
}
