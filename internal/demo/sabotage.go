package demo

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Sabotage is a fault that is planted before the audit, to check that it notices.
type Sabotage string

const (
	SabotageLoss      Sabotage = "loss"      // a shipment is deleted
	SabotageDuplicate Sabotage = "duplicate" // an invoice is written twice
)

func (f Sabotage) commit(ctx context.Context, pool *pgxpool.Pool, s *screen) error {
	var sql string
	switch f {
	case "":
		return nil
	case SabotageLoss:
		s.title("Sabotage: a shipment is deleted")
		sql = `
			DELETE FROM ` + shopSchema + `.shipments
			WHERE order_id = (SELECT order_id FROM ` + shopSchema + `.shipments ORDER BY order_id LIMIT 1)`
	case SabotageDuplicate:
		s.title("Sabotage: an invoice is written twice")
		sql = `
			INSERT INTO ` + shopSchema + `.invoices
			SELECT * FROM ` + shopSchema + `.invoices ORDER BY order_id LIMIT 1`
	default:
		return fmt.Errorf("unknown sabotage %q: use %s or %s", f, SabotageLoss, SabotageDuplicate)
	}
	if _, err := pool.Exec(ctx, sql); err != nil {
		return fmt.Errorf("sabotage: %w", err)
	}
	return nil
}
