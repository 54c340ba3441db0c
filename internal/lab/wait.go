package lab

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Sleep waits for a while. If ctx ends first it returns the cause.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// SleepUntil waits until a time, or not at all if that has passed.
func SleepUntil(ctx context.Context, t time.Time) error {
	d := time.Until(t)
	if d <= 0 {
		return ctx.Err()
	}
	return Sleep(ctx, d)
}

// InParallel calls f concurrently with the numbers from 0 to n-1, and returns when all calls have returned, with their errors.
func InParallel(n int, f func(i int) error) error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = f(i) })
	}
	all.Wait()
	return errors.Join(errs...)
}
