package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// The flags of a filter. Each parses its own text, so that a mistake is pointed at.

type moment struct{ *ops.Moment }

func (m moment) String() string { return "" }
func (m moment) Type() string   { return "TIME" }
func (m moment) Set(text string) (err error) {
	*m.Moment, err = ops.ParseMoment(text)
	return pointAt(err)
}

type attempts struct{ *ops.Range }

func (r attempts) String() string { return "" }
func (r attempts) Type() string   { return "RANGE" }
func (r attempts) Set(text string) (err error) {
	*r.Range, err = ops.ParseRange(text)
	return pointAt(err)
}

type headers struct{ to *map[string]string }

func (h headers) String() string { return "" }
func (h headers) Type() string   { return "NAME=VALUE" }
func (h headers) Set(text string) error {
	name, value, found := cutHeader(text, "=")
	if !found || name == "" {
		return pointAt(&ops.FilterError{Text: text, At: len(name), Why: "write NAME=VALUE"})
	}
	if other, twice := (*h.to)[name]; twice && other != value {
		return fmt.Errorf("no message has a header twice: %s", name)
	}
	if *h.to == nil {
		*h.to = map[string]string{}
	}
	(*h.to)[name] = value
	return nil
}

type order struct{ *ops.Order }

func (o order) String() string { return "" }
func (o order) Type() string   { return "ORDER" }
func (o order) Set(text string) error {
	if *o.Order = ops.Order(text); *o.Order != ops.Newest && *o.Order != ops.Oldest {
		return errors.New("there are newest and oldest")
	}
	return nil
}

type status struct{ *ops.Status }

func (s status) String() string { return string(ops.StatusFailed) }
func (s status) Type() string   { return "STATUS" }
func (s status) Set(text string) error {
	switch *s.Status = ops.Status(text); *s.Status {
	case ops.StatusFailed, ops.StatusArchived, ops.StatusAny:
		return nil
	}
	return errors.New("there are failed, archived and any")
}

type groupOrder struct{ *ops.Order }

func (o groupOrder) String() string { return "count" }
func (o groupOrder) Type() string   { return "ORDER" }
func (o groupOrder) Set(text string) error {
	switch text {
	case "count":
		*o.Order = ""
	case string(ops.Newest), string(ops.Oldest):
		*o.Order = ops.Order(text)
	default:
		return errors.New("there are count, newest and oldest")
	}
	return nil
}

// groupBy is what failed messages are grouped by; a flag.
type groupBy struct{ *ops.GroupBy }

func (g groupBy) String() string {
	if g.GroupBy == nil {
		return ""
	}
	return string(*g.GroupBy)
}
func (g groupBy) Type() string { return "WHAT" }
func (g groupBy) Set(text string) error {
	if !slices.Contains(ops.GroupBys, ops.GroupBy(text)) {
		return errors.New("there are " + strings.Join(groupBys(), ", "))
	}
	*g.GroupBy = ops.GroupBy(text)
	return nil
}

// groupBys are the values of --by.
func groupBys() (names []string) {
	for _, by := range ops.GroupBys {
		names = append(names, string(by))
	}
	return names
}

// pointAt leaves out of a filter's error what the flag's own error repeats: its text.
func pointAt(err error) error {
	var wrong *ops.FilterError
	if !errors.As(err, &wrong) {
		return err
	}
	return fmt.Errorf("%s\n  %s\n  %s^", wrong.Why, wrong.Text, strings.Repeat(" ", term.Width(wrong.Text[:min(wrong.At, len(wrong.Text))])))
}
