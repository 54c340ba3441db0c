//go:build !lockorder

package sqlq

import "sync"

// ranked is a mutex with a place in the order of locks (see runner). Built with the tag lockorder it panics where the order is not
// kept.
type ranked[R interface{ rank() int }] = sync.Mutex
