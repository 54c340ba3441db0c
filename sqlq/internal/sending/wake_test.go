package sending

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Wake-ups that come while one is under way share the next: one NOTIFY statement, each channel once, and nobody returns
// before a statement that began after its commit has ended.
func TestWakesShareNotifies(t *testing.T) {
	t.Parallel()
	began, end := make(chan []string), make(chan struct{})
	w := &Wakes{notify: func(channels []string) {
		began <- channels
		<-end
	}}
	gathered := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.next == nil {
			return 0
		}
		return len(w.next.channels)
	}
	var all sync.WaitGroup
	var returned atomic.Int64
	ask := func(channels ...string) { all.Go(func() { w.Wake(channels...); returned.Add(1) }) }
	ask("a")
	if got := <-began; fmt.Sprint(got) != "[a]" {
		t.Errorf("the first notifies %v", got)
	}
	for range 5 {
		ask("b", "a")
		ask("c")
	}
	eventually(t, "wake-ups that gather", func() (bool, string) { return gathered() == 15, fmt.Sprint(gathered()) })
	if n := returned.Load(); n != 0 {
		t.Errorf("%d returned before anybody was woken", n)
	}
	end <- struct{}{}
	if got := <-began; fmt.Sprint(got) != "[a b c]" {
		t.Errorf("the second notifies %v", got)
	}
	ask("d")
	eventually(t, "a wake-up that waits", func() (bool, string) { return gathered() == 1, fmt.Sprint(gathered()) })
	end <- struct{}{}
	if got := <-began; fmt.Sprint(got) != "[d]" {
		t.Errorf("the third notifies %v", got)
	}
	end <- struct{}{}
	all.Wait()
}

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() (ok bool, describe string)) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		ok, describe := holds()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: still %s", what, describe)
		}
		<-time.After(time.Millisecond)
	}
}
