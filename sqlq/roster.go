package sqlq

import (
	"slices"
	"sync/atomic"
)

// roster is those that a runner has now of a kind that comes and goes. Whoever goes through them sees those of one moment. It is
// changed under Client.mu.
type roster[T any] struct{ all atomic.Pointer[[]*T] }

func (r *roster[T]) now() []*T {
	if all := r.all.Load(); all != nil {
		return *all
	}
	return nil
}

func (r *roster[T]) add(come ...*T) {
	all := slices.Concat(r.now(), come)
	r.all.Store(&all)
}

func (r *roster[T]) remove(gone ...*T) {
	all := slices.DeleteFunc(slices.Clone(r.now()), func(one *T) bool { return slices.Contains(gone, one) })
	r.all.Store(&all)
}
