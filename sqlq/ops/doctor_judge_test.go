package ops

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// Slots, standbys and old rows cannot be had quickly from a server: this holds what doctor thinks of them.
func TestJudgeHolders(t *testing.T) {
	t.Parallel()
	e := &examination{core: New(nil, "sqlq").core, DoctorOptions: DoctorOptions{}.withDefaults()}
	for _, c := range []struct {
		h    query.Holder
		code string
		want string // severity and a part of what; "": nothing
	}{
		{query.Holder{Kind: "slot", Name: "it's", State: "inactive", Holds: true, Xids: 7}, "slot-unused-holds-rows", `problem replication slot "it's", which nobody uses, holds rows back since 7 transactions ago | SELECT pg_drop_replication_slot('it''s')`},
		{query.Holder{Kind: "slot", Name: "s", State: "active", Holds: true, Xids: 7}, "", ""},
		{query.Holder{Kind: "slot", Name: "s", State: "active", Holds: true, Xids: longXids + 1}, "slot-holds-rows", `warning replication slot "s" holds rows back`},
		{query.Holder{Kind: "slot", Name: "s", State: "inactive", HoldsFiles: 20 << 30}, "slot-keeps-wal", `warning replication slot "s", which nobody uses, keeps 20 GB of WAL`},
		{query.Holder{Kind: "slot", Name: "s", State: "inactive", HoldsFiles: 1 << 20}, "", ""},
		{query.Holder{Kind: "standby", Name: "s", Holds: true, Xids: longXids + 1}, "standby-holds-rows", `warning standby "s" reads a state of 1000001 transactions ago`},
		{query.Holder{Kind: "standby", Name: "s", Holds: true, Xids: 5}, "", ""},
		{query.Holder{Kind: "session", Name: "psql", User: "ann", PID: 7, State: "active", Holds: true, Open: 10 * time.Minute, Query: "SELECT\n 1"}, "transaction-long",
			`warning a transaction has been open for 10m0s: backend 7 of "ann" (psql), active: SELECT 1 | SELECT pg_terminate_backend(7)`},
		{query.Holder{Kind: "session", Holds: true, Open: 2 * time.Hour}, "transaction-long", `problem a transaction has been open for 2h0m0s`},
	} {
		f, is := e.holder(c.h, "cost")
		got := string(f.Severity) + " " + f.What + " | " + f.Fix
		severity, text, _ := strings.Cut(c.want, " ")
		what, fix, _ := strings.Cut(text, " | ")
		if is != (c.want != "") || is && (string(f.Severity) != severity || !strings.Contains(f.What, what) || !strings.Contains(f.Fix, fix)) {
			t.Errorf("%+v: %v %s, want %s", c.h, is, got, c.want)
		}
		if is && (f.Code != c.code || f.Subject.Name != c.h.Name && f.Subject != (Subject{"session", fmt.Sprint(c.h.PID)})) {
			t.Errorf("%+v: code %q about %+v, want %q", c.h, f.Code, f.Subject, c.code)
		}
	}
}

func TestJudgeWraparound(t *testing.T) {
	t.Parallel()
	e := &examination{core: New(nil, "sqlq").core}
	for age, want := range map[int64]Severity{200_000_000: "", 250_000_001: SeverityWarning, 1_500_000_000: SeverityProblem} {
		found := e.wraparound(query.TableHealth{Table: "q_sales", XidAge: age, FreezeXids: 200_000_000, MultixactAge: 5, FreezeMulti: 400_000_000})
		if len(found) == 0 && want == "" {
			continue
		}
		if len(found) != 1 || found[0].Severity != want || !strings.Contains(found[0].What, `queue "sales"`) || !strings.Contains(found[0].Fix, "FREEZE") {
			t.Errorf("at age %d: %+v, want %q", age, found, want)
			continue
		}
		if found[0].Code != "transactions-unfrozen" || found[0].Subject != (Subject{"queue", "sales"}) {
			t.Errorf("at age %d: code %q about %+v", age, found[0].Code, found[0].Subject)
		}
	}
}
