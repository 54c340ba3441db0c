package store

import (
	"bytes"
	"testing"
)

// Values keep their bytes whatever comes after them, appended to or not, and an empty one is not null.
func TestChunked(t *testing.T) {
	t.Parallel()
	var c chunked
	row := make([]byte, 2*maxChunk) // as the driver does, which reads each row into the same memory
	var want, got [][]byte
	for i, size := range []int{1, 0, 200, maxChunk / 8, maxChunk/8 + 1, maxChunk, 3, 2 * maxChunk, 0, 7} {
		for range 30 {
			copy(row, bytes.Repeat([]byte{byte('a' + len(want)%26)}, size))
			if err := c.ScanBytes(row[:size]); err != nil {
				t.Fatal(err)
			}
			if c.value == nil {
				t.Fatalf("case %d: %d bytes became null", i, size)
			}
			want, got = append(want, bytes.Clone(row[:size])), append(got, c.value)
		}
	}
	for i := range got {
		_ = append(got[i], "overflow"...)
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Errorf("value %d, of %d bytes, has changed", i, len(want[i]))
		}
	}
	if err := c.ScanBytes(nil); err != nil || c.value != nil {
		t.Errorf("null became %q, %v", c.value, err)
	}
}
