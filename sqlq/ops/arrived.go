package ops

import (
	"context"
	"fmt"
)

// Arrived returns how many messages have come into each queue since it was made: those sent to it, and those that came back
// from being delayed, leased or failed. What a transaction sent that was rolled back counts too. The difference of two
// readings is what arrived between them. Queues whose sequence the role may not read, as a viewer may not, are left out.
func (o Queues) Arrived(ctx context.Context) (map[string]int64, error) {
	readings, err := o.store.ReadArrivals(ctx, o.pool)
	if err != nil {
		return nil, fmt.Errorf("read what has arrived in the queues: %w", err)
	}
	arrived := make(map[string]int64, len(readings))
	for _, r := range readings {
		arrived[r.Queue] = r.N
	}
	return arrived, nil
}
