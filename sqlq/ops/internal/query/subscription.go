package query

import (
	"context"
	"fmt"
)

// AddSubscription lets a queue have a copy of every event of a type that is published after the commit; false: it had
// already. A type name that is not allowed is an error that says so.
func (s routeQueries) AddSubscription(ctx context.Context, db DBTX, messageType, queue string) (added bool, err error) {
	tag, err := db.Exec(ctx, fmt.Sprintf(`
		INSERT INTO %s (type, queue) SELECT $1::text, $2::text WHERE %s($1::text, 'null', NULL) IS NULL ON CONFLICT DO NOTHING`,
		s.table("subscription"), s.table("check_message")), messageType, queue)
	return tag.RowsAffected() == 1, err
}

// RemoveSubscription ends a subscription; false: there is none. Relies on the primary key.
func (s routeQueries) RemoveSubscription(ctx context.Context, db DBTX, messageType, queue string) (removed bool, err error) {
	tag, err := db.Exec(ctx, fmt.Sprintf(`DELETE FROM %s WHERE type = $1::text AND queue = $2::text`, s.table("subscription")), messageType, queue)
	return tag.RowsAffected() == 1, err
}

// MaySeeSubscriptions reports whether this role may read the subscriptions. A producer may not, although it publishes to them.
func (s routeQueries) MaySeeSubscriptions(ctx context.Context, db DBTX) (may bool, err error) {
	err = db.QueryRow(ctx, `SELECT has_table_privilege($1::text, 'SELECT')`, s.table("subscription")).Scan(&may)
	return may, err
}
