package sqlq_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq"
)

func TestNewID(t *testing.T) {
	t.Parallel()
	seen := map[sqlq.ID]bool{}
	for range 1000 {
		before := time.Now().UnixMilli()
		id := sqlq.NewID()
		after := time.Now().UnixMilli()
		if seen[id] {
			t.Fatalf("%v twice", id)
		}
		seen[id] = true
		if id[6]>>4 != 7 || id[8]>>6 != 2 {
			t.Fatalf("%v is no UUID of version 7", id)
		}
		var ms int64
		for _, b := range id[:6] {
			ms = ms<<8 | int64(b)
		}
		if ms < before || ms > after {
			t.Fatalf("%v says %d ms, it was made between %d and %d", id, ms, before, after)
		}
	}
}

func TestParseID(t *testing.T) {
	t.Parallel()
	id := sqlq.NewID()
	for _, good := range []string{id.String(), strings.ToUpper(id.String())} {
		if got, err := sqlq.ParseID(good); err != nil || got != id {
			t.Errorf("ParseID(%q): %v, %v", good, got, err)
		}
	}
	for _, bad := range badIDs {
		if got, err := sqlq.ParseID(bad); err == nil || got != (sqlq.ID{}) {
			t.Errorf("ParseID(%q): %v, %v; want an error", bad, got, err)
		}
	}
}

var badIDs = []string{
	"", "x", "01890a5dac96774bbcceb302099a8057", "{01890a5d-ac96-774b-bcce-b302099a8057}", "01890a5d-ac96-774b-bcce-b302099a805",
	"01890a5d-ac96-774b-bcce-b302099a80570", "01890a5d-ac96-774b-bcce-b302099a805g", " 1890a5d-ac96-774b-bcce-b302099a8057", "01890a5d_ac96_774b_bcce_b302099a8057",
	// Of the right length, with dashes where digits should be.
	"01890a5d-ac96-774b-bcce-b302099a80--", "--890a5d-ac96-774b-bcce-b302099a8057", "------------------------------------", "01890a5d-ac96-774b-bcce-b302099a--57",
}

// An id that is read is the one that was written; nothing else is read.
func FuzzParseID(f *testing.F) {
	f.Add("01890a5d-ac96-774b-bcce-b302099a8057")
	for _, bad := range badIDs {
		f.Add(bad)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := sqlq.ParseID(s)
		if err != nil {
			return
		}
		if id.String() != strings.ToLower(s) {
			t.Errorf("ParseID(%q) is %v", s, id)
		}
		again, err := sqlq.ParseID(id.String())
		if err != nil || !bytes.Equal(id[:], again[:]) {
			t.Errorf("%v, written and read, is %v, %v", id, again, err)
		}
	})
}
