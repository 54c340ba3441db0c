// Package store holds all SQL that the runtime runs, a type and a file for each noun; what only operators run is in package query of
// ops, and the tables and SQL functions are in package migrations.
//
// Every statement names its tables with the schema, so it works whatever the search_path. Above each query stands what
// it takes, returns, locks and which index it relies on. A function that takes a DBTX runs in the caller's transaction
// or alone; one that takes a *pgx.Batch queues statements for the caller's round trip.
package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// DBTX runs statements: a pool, a connection or a transaction.
type DBTX interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Schema is a schema that sqlq's tables are in, with the queries that the runtime makes of it, by their noun. It is safe for
// concurrent use.
type Schema struct {
	base

	Ready         Ready
	InHand        InHand
	Leases        Leases
	Removed       Removed
	Delayed       Delayed
	Sending       Sending
	Inbox         Inbox
	Instances     Instances
	Lead          Lead
	Queues        Queues
	Low           Low
	Subscriptions Subscriptions
	Wakeups       Wakeups
	Tables        Tables
	Sessions      Sessions
	Records       Records
}

// New returns the queries for the schema of that name. It does not look whether the schema exists.
func New(schema string) *Schema {
	b := base{schema}
	return &Schema{b, Ready{b}, InHand{b}, Leases{b}, Removed{b}, Delayed{b}, Sending{base: b}, Inbox{b}, Instances{b}, Lead{b}, Queues{b}, Low{b},
		Subscriptions{b}, Wakeups{b}, Tables{b}, Sessions{b}, Records{b}}
}

// Name returns the schema's name, unquoted.
func (s *Schema) Name() string { return s.name }

// base names and quotes what the queries are about, and has the pieces of SQL that several nouns share.
type base struct{ name string }

// table returns the quoted, qualified name of a table or function of the schema.
func (s base) table(name string) string { return pgx.Identifier{s.name, name}.Sanitize() }

// ready returns the quoted, qualified name of a queue's table of ready messages.
func (s base) ready(queue string) string { return s.table("q_" + queue) }

// quote returns a string as an SQL literal, for the few places that cannot take a parameter. The E form means the
// same whatever standard_conforming_strings says.
func quote(v string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, `'`, `''`, "\x00", "").Replace(v) + "'"
}

// withHeaders is an SQL expression: a json column of headers with some more, given as an expression for text like
// '"name":"value"'. It works on text: jsonb, and on older servers ->> too, refuses \u0000 and some surrogates that json
// has let in, and one such message would keep its whole batch from being settled. What is added comes last, so it counts
// if the name is there already. Headers that are no object stay as they are.
func withHeaders(column, added string) string {
	return fmt.Sprintf(`CASE WHEN %[1]s IS NULL OR %[1]s::text ~ '^\s*\{\s*\}\s*$' THEN ('{' || %[2]s || '}')::json
		WHEN json_typeof(%[1]s) = 'object' THEN (regexp_replace(%[1]s::text, '\s*\}\s*$', ',') || %[2]s || '}')::json
		ELSE %[1]s END`, column, added)
}
