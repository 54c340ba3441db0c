//go:build unix

package devpg

import "testing"

// BenchmarkStart measures the cold start: from nothing to a server that answers. The seed exists already.
func BenchmarkStart(b *testing.B) {
	for name, memory := range map[string]bool{"disk": false, "memory": true} {
		b.Run(name, func(b *testing.B) {
			o, err := TestOptions()
			if err != nil {
				b.Fatal(err)
			}
			o.InMemory = memory
			for b.Loop() {
				s, err := Start(b.Context(), o)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := s.Stop(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
