package migrate

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
)

// exampleQueue is the queue that all are compared with.
const exampleQueue = "example"

// shape is what a schema looks like: a line for each place in it.
type shape struct {
	lines  map[place]string
	queues map[string]map[place]string // of each queue, with its name taken out
	named  map[string]*regexp.Regexp   // a queue's table, key and sequence, quoted or not
}

type place struct{ object, part string }

// described are the lines of the catalogue that a shape consists of, in order: what a schema has, and what everybody may do.
const described = `SELECT at, text FROM (` + catalogue + `) c WHERE kind IN ('shape', 'body') OR kind = 'grant' AND at[3] = 'PUBLIC' ORDER BY at COLLATE "C", text COLLATE "C"`

func newShape() shape {
	return shape{map[place]string{}, map[string]map[place]string{}, map[string]*regexp.Regexp{}}
}

// shapeOf reads the shape of a schema.
func shapeOf(ctx context.Context, tx pgx.Tx, schema string) (shape, error) {
	s := newShape()
	if _, err := tx.Exec(ctx, `SET LOCAL search_path = `+pgx.Identifier{schema}.Sanitize()); err != nil {
		return s, err
	}
	rows, err := tx.Query(ctx, described, schema)
	if err != nil {
		return s, err
	}
	var at []string
	var text string
	_, err = pgx.ForEachRow(rows, []any{&at, &text}, func() error {
		s.add(at, text)
		return nil
	})
	return s, err
}

// stored is what the catalogue says of a schema of the newest version with the queue "example": a JSON array a line, the place and
// then the text.
//
//go:embed shape.jsonl
var stored string

// storedShape returns the shape of the newest version without asking a server.
func storedShape() (shape, error) {
	s := newShape()
	for line := range strings.Lines(stored) {
		var at []string
		if err := json.Unmarshal([]byte(line), &at); err != nil || len(at) < 3 {
			return s, fmt.Errorf("shape.jsonl: %q: %w", line, err)
		}
		s.add(at[:len(at)-1], at[len(at)-1])
	}
	return s, nil
}

// add takes in a line of the catalogue.
func (s shape) add(at []string, text string) {
	p := place{at[0], strings.Join(at[1:], " ")}
	if words := strings.Fields(text); len(words) > 3 && words[0] == "table" && words[2] == "column" {
		p.part = "column " + words[3] // not its number
	}
	queue, is := queueOf(strings.TrimPrefix(strings.TrimPrefix(at[0], "table "), "sequence "))
	if !is {
		s.lines[p] = text
		return
	}
	if s.queues[queue] == nil {
		s.queues[queue] = map[place]string{}
		s.named[queue] = regexp.MustCompile(fmt.Sprintf(`"([qks])_%[1]s"|\b([qks])_%[1]s`, regexp.QuoteMeta(queue)))
	}
	anonymous := func(text string) string { return s.named[queue].ReplaceAllString(text, "${1}${2}_*") }
	s.queues[queue][place{anonymous(p.object), anonymous(p.part)}] = anonymous(text)
}

// queueOf returns the queue that a table or sequence belongs to.
func queueOf(object string) (queue string, is bool) {
	if queue, is = strings.CutPrefix(object, "q_"); !is {
		queue, is = strings.CutPrefix(object, "s_")
	}
	return queue, is
}
