package sqlq_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/sqlq/sqlq/sqlq"
)

// Texts of one fault that differ in numbers, ids and addresses only.
var sameFault = [][]string{
	{"order 7 not found", "order 123456789 not found", "order -7 not found"},
	{"balance -3.50 is below 0", "balance 1,234.56 is below 10", "balance 1e+06 is below 2.5e-07"},
	{"order 01890a5d-ac96-774b-bcce-b302099a8057: gone", "order FFFFFFFF-ABCD-ABCD-ABCD-FFFFFFFFFFFF: gone", "order 17: gone"},
	{"order 01890a5dac96774bbcceb302099a8057: gone", "order 0x17: gone", "order deadbee7: gone"},
	{"user 01ARZ3NDEKTSV4RRFFQ69G5FAV is blocked", "user 01BX5ZZKBKACTAV9WEVGEMMVRZ is blocked"},                         // ULID
	{"user 0ujtsYcgvSTl8PAuAdqWYSMnLOv is blocked", "user 1srOrx2ZWZBpBUvZwXKQmoEYga2 is blocked", "user 42 is blocked"}, // KSUID
	{"user 507f1f77bcf86cd799439011 is blocked", "user 507f191e810c19729de860ea is blocked"},                             // ObjectID
	{"no customer cus_9s6XKzkNRiz8i3", "no customer cus_NffrFeUfNV2Hib", "no customer cus_4QFOF3xrvBT2nU"},               // Stripe
	{"no session V1StGXR8_Z5jdHi6B-myT", "no session gZ8Lr2kT0pWx-4NqYb1cD", "no session ckopqwooh000001la8mbi2im9"},     // nanoid, cuid
	{"dial tcp 10.0.0.1:5432: connect: connection refused", "dial tcp [::1]:5432: connect: connection refused", "dial tcp [fe80::1%eth0]:6432: connect: connection refused"},
	{"lookup of 192.168.7.25 failed", "lookup of 2001:db8::8a2e:370:7334 failed", "lookup of fe80::abcd:beef failed", "lookup of ::ffff:10.1.2.3 failed"},
	{"no route to 00:1b:44:11:3a:b7", "no route to aa:bb:cc:dd:ee:f0"},
	{"mail to jane.doe+x@example.com bounced", "mail to bob@mail.example.co.uk bounced"},
	{"panic: 0xc000123abc is nil", "panic: 0x7ffe is nil"},
	{"timeout after 1.5s", "timeout after 500ms", "timeout after 1m30s", "timeout after 2h0m0.5s", "timeout after 900µs"},
	{"at 2026-11-21T06:47:19.847508Z: late", "at 1999-01-02T03:04:05Z: late"},
	{`key (id)=(17) exists`, `key (id)=(01890a5d-ac96-774b-bcce-b302099a8057) exists`},
	{`"7" is no colour`, `"12345" is no colour`},
	{"part 3/7 of #12: bad", "part 10/700 of #1: bad"},
	{"", ""},
	{strings.Repeat("a very long tale ", 2000), strings.Repeat("a very long tale ", 2000)},
}

// Texts of different faults.
var otherFault = []string{
	"order 7 not found", "order 7 not sent", "customer 7 not found", "insert order: connection refused", "update order: connection refused",
	`violates unique constraint "orders_pkey"`, `violates unique constraint "customers_pkey"`, `violates check constraint "orders_pkey"`,
	"column face missing", "column cafe missing", "column dead missing", "bad std::vector", "bad std::list", "bad a::b::c", "bad d::e::f",
	"handleCustomerOrderPlacement failed", "handleCustomerOrderCancellation failed", "context canceled", "context deadline exceeded", "unexpected EOF", "EOF",
	"user@", "@user", "a: b", "a; b", "émile", "emile", "漢字", "漢語", "", " ", "the end.", "the end",
	"table customers3 is missing", "table orders2 is missing", "field shipping_address_line_1 is empty", "field billing_address_line_1 is empty",
}

func TestFingerprint(t *testing.T) {
	t.Parallel()
	for _, texts := range sameFault {
		want := sqlq.Fingerprint("t", "e", texts[0])
		for _, text := range texts[1:] {
			if got := sqlq.Fingerprint("t", "e", text); got != want {
				t.Errorf("%q and %q are two faults", texts[0], text)
			}
		}
	}
	seen := map[string]string{}
	for _, text := range otherFault {
		f := sqlq.Fingerprint("t", "e", text)
		if other, ok := seen[f]; ok {
			t.Errorf("%q and %q are one fault", other, text)
		}
		seen[f] = text
	}
	f := sqlq.Fingerprint("a.B", "c.D", "e")
	for _, other := range [][3]string{{"a.B2", "c.D", "e"}, {"a.B", "c.D2", "e"}, {"a.B", "c.D", "f"}, {"a.Bc", ".D", "e"}, {"c.D", "a.B", "e"}} {
		if sqlq.Fingerprint(other[0], other[1], other[2]) == f {
			t.Errorf("message type a.B, error type c.D, text e and %q are one fault", other)
		}
	}
}

var fingerprintForm = regexp.MustCompile(`^[0-9a-f]{16}$`)

// Whatever an error says, its fingerprint has one form, is the same each time, does not depend on a number in the text
// and does depend on its words.
func FuzzFingerprint(f *testing.F) {
	for _, texts := range append(sameFault, otherFault) {
		for i, text := range texts {
			f.Add(text, text, uint64(i), uint64(1)<<(i+40))
		}
	}
	f.Add("\xff\x00", "[[::]]:%%@..@", uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, before, after string, a, b uint64) {
		text := func(n uint64) string { return fmt.Sprint(before, " ", n, " ", after) }
		got := sqlq.Fingerprint("t", "e", text(a))
		if !fingerprintForm.MatchString(got) {
			t.Errorf("%q has fingerprint %q", text(a), got)
		}
		if sqlq.Fingerprint("t", "e", text(a)) != got {
			t.Errorf("%q has two fingerprints", text(a))
		}
		if len(before)+len(after) > 4000 {
			return // what is beyond the limit does not count, and where that is depends on the numbers
		}
		if sqlq.Fingerprint("t", "e", text(b)) != got {
			t.Errorf("%q and %q are two faults", text(a), text(b))
		}
		if sqlq.Fingerprint("t", "e", text(a)+" again") == got {
			t.Errorf("%q and %q are one fault", text(a), text(a)+" again")
		}
	})
}
