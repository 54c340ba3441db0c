package store

import "context"

// SetSession sets settings of the session, but for those that the server does not know.
func SetSession(ctx context.Context, db DBTX, names, values []string) error {
	_, err := db.Exec(ctx, `
		SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) s (name, value)
		WHERE current_setting(name, true) IS NOT NULL`, names, values)
	return err
}
