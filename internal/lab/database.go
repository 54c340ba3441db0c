package lab

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// NewPool opens a pool of up to n connections with the given settings, such as application_name. It connects on first use.
func NewPool(ctx context.Context, url string, n int, settings map[string]string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.MaxConns = int32(n)
	for name, value := range settings {
		config.ConnConfig.RuntimeParams[name] = value
	}
	return pgxpool.NewWithConfig(ctx, config)
}

// Execute runs statements one by one on a separate connection.
func Execute(ctx context.Context, url string, statements ...string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// Waiting returns an SQL expression: how many messages have not been handled yet, in the queues, delayed or leased. The schema is sqlq.
func Waiting(queues ...string) string {
	all := []string{count("delayed"), count("leased")}
	for _, q := range queues {
		all = append(all, count("q_"+q))
	}
	return strings.Join(all, " + ")
}

func count(table string) string { return `(SELECT count(*) FROM sqlq.` + table + `)` }

// Querier is a connection, a pool or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Lie calls f with each stored message, its place (ready, delayed, leased or error) and its queue.
// The messages' bodies are JSON objects in which field is the number of the message. The schema is sqlq.
func Lie(ctx context.Context, db Querier, field string, queues []string, f func(place, queue string, number int64)) error {
	var all []string
	of := func(place, table, queue string) {
		all = append(all, fmt.Sprintf(`SELECT '%s', %s, (convert_from(body, 'UTF8')::json->>$1::text)::bigint FROM sqlq.%s`, place, queue, table))
	}
	for _, place := range []string{"delayed", "leased", "error"} {
		of(place, place, "queue")
	}
	for _, q := range queues {
		of(q, "q_"+q, "'"+q+"'")
	}
	rows, err := db.Query(ctx, strings.Join(all, " UNION ALL "), field)
	if err != nil {
		return fmt.Errorf("look where messages lie: %w", err)
	}
	var place, queue string
	var number int64
	_, err = pgx.ForEachRow(rows, []any{&place, &queue, &number}, func() error {
		f(place, queue, number)
		return nil
	})
	if err != nil {
		return fmt.Errorf("look where messages lie: %w", err)
	}
	return nil
}
