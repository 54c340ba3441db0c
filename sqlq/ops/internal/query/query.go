// Package query holds the SQL that operators run, in files by what it does; what the runtime runs is in package store, and the
// tables and SQL functions are in package migrations.
//
// Every statement names its tables with the schema, so it works whatever the search_path. Above each query stands what it
// takes, returns, locks and which index it relies on. A function that takes a DBTX runs in the caller's transaction or
// alone; one that takes a *pgx.Batch queues statements for the caller's round trip.
package query

import "github.com/sqlq/sqlq/sqlq/internal/store"

// DBTX runs statements: a pool, a connection or a transaction.
type DBTX = store.DBTX

// Schema is a schema that sqlq's tables are in, with the queries that operators make of it. It is safe for concurrent use.
type Schema struct {
	*store.Schema // what operators share with the runtime

	queueQueries
	routeQueries
	readyQueries
	sendQueries
	delayedQueries
	failedQueries
	leaseQueries
	instanceQueries
	operationQueries
	roleQueries
	healthQueries
	filterQueries
}

// The queries by their noun.
type (
	queueQueries     struct{ base }
	routeQueries     struct{ base }
	readyQueries     struct{ base }
	sendQueries      struct{ base }
	delayedQueries   struct{ base }
	failedQueries    struct{ base }
	leaseQueries     struct{ base }
	instanceQueries  struct{ base }
	operationQueries struct{ base }
	roleQueries      struct{ base }
	healthQueries    struct{ base }
	filterQueries    struct{ base }
)

// New returns the queries for the schema of that name. It does not look whether the schema exists.
func New(schema string) *Schema {
	b := base{store.New(schema)}
	return &Schema{b.Schema, queueQueries{b}, routeQueries{b}, readyQueries{b}, sendQueries{b}, delayedQueries{b}, failedQueries{b}, leaseQueries{b},
		instanceQueries{b}, operationQueries{b}, roleQueries{b}, healthQueries{b}, filterQueries{b}}
}

// base names and quotes what the queries are about, as the runtime's do.
type base struct{ *store.Schema }

// table returns the quoted, qualified name of a table or function of the schema.
func (s base) table(name string) string { return s.Table(name) }

// ready returns the quoted, qualified name of a queue's table of ready messages.
func (s base) ready(queue string) string { return s.ReadyTable(queue) }

// asleep is an SQL expression: see store.Schema's Asleep.
func (s base) asleep(queue string) string { return s.Asleep(queue) }

// quote returns a string as an SQL literal.
func quote(v string) string { return store.Quote(v) }

// withHeaders is an SQL expression: see store.WithHeaders.
func withHeaders(column, added string) string { return store.WithHeaders(column, added) }
