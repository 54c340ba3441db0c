//go:build lockorder

package sqlq

import "testing"

// The order of locks is checked while all other tests run with the tag: go test -tags lockorder ./sqlq
func TestLockOrderIsChecked(t *testing.T) {
	var before ranked[ofDispatcher]
	var behind ranked[ofHand]
	before.Lock()
	behind.Lock()
	behind.Unlock()
	before.Unlock()
	behind.Lock()
	defer behind.Unlock()
	if !refused(before.Lock) {
		t.Error("locks were taken out of order")
	}
	if !refused(behind.Lock) {
		t.Error("two of a kind were taken")
	}
}
