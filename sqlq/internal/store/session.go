package store

import "context"

// SetSession sets settings of the session, but for those that the server does not know.
func SetSession(ctx context.Context, db DBTX, names, values []string) error {
	_, err := db.Exec(ctx, `
		SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) s (name, value)
		WHERE current_setting(name, true) IS NOT NULL`, names, values)
	return err
}

// Settings returns what settings are, which the server must know.
func Settings(ctx context.Context, db DBTX, names []string) (values []string, err error) {
	err = db.QueryRow(ctx, `
		SELECT array_agg(current_setting(name) ORDER BY n) FROM unnest($1::text[]) WITH ORDINALITY s (name, n)`, names).Scan(&values)
	return values, err
}
