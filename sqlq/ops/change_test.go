package ops

import (
	"encoding/json"
	"reflect"
	"testing"
	"testing/synctest"
	"time"
)

// A rate is kept to evenly, whatever a batch takes, and a delay is not made good by a burst.
func TestPacer(t *testing.T) {
	t.Parallel()
	for _, rate := range []int{1, 3, 30, 1000, 90_000} {
		synctest.Test(t, func(t *testing.T) {
			p, began := pacer{rate: float64(rate)}, time.Now()
			var taken int64
			run := func(batches int) {
				for range batches {
					if err := p.wait(t.Context()); err != nil {
						t.Fatal(err)
					}
					taken += p.most(changeBatch)
					<-time.After(time.Second / time.Duration(2*rate)) // of the bubble: what the batch takes
					p.took(p.most(changeBatch))
				}
			}
			within := func(since time.Time, n int64) {
				t.Helper()
				lasted := time.Since(since)
				if most := int64(lasted.Seconds()*float64(rate)) + p.most(changeBatch); n > most {
					t.Errorf("%d/s: %d in %s, want at most %d", rate, n, lasted, most)
				}
				if least := int64(lasted.Seconds() * float64(rate) * 0.9); n < least-p.most(changeBatch) {
					t.Errorf("%d/s: %d in %s, want at least %d", rate, n, lasted, least)
				}
			}
			run(200)
			within(began, taken)
			<-time.After(time.Minute)
			began, taken = time.Now(), 0
			run(200)
			within(began, taken)
		})
	}
}

func TestPacerWithoutRate(t *testing.T) {
	t.Parallel()
	p := pacer{}
	for range 3 {
		if err := p.wait(t.Context()); err != nil || p.most(changeBatch) != changeBatch {
			t.Errorf("most %d, err %v", p.most(changeBatch), err)
		}
		p.took(changeBatch)
	}
	if !p.next.IsZero() {
		t.Error("it waits")
	}
}

// Every condition of a filter survives being written down: one that did not would let a resumed operation choose others.
func TestFilterIsWrittenDown(t *testing.T) {
	t.Parallel()
	three, at := 3, time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	f := Filter{Names: []string{"1"}, Queue: "q", Type: "t", Group: "g", Error: "/e/", Since: Moment{At: at}, Until: Moment{At: at},
		Headers: map[string]string{"a": "b"}, Body: "$.a", Attempts: Range{Min: &three}, Status: StatusAny, Order: Newest, Limit: 7, All: true}
	for i := range reflect.TypeFor[Filter]().NumField() {
		if reflect.ValueOf(f).Field(i).IsZero() {
			t.Errorf("this test leaves out %s", reflect.TypeFor[Filter]().Field(i).Name)
		}
	}
	text, err := json.Marshal(write(f, 100))
	if err != nil {
		t.Fatal(err)
	}
	got, told, err := read(text)
	if err != nil || told.Rate != 100 || !reflect.DeepEqual(got, f) {
		t.Errorf("%s: read %+v, rate %g, err %v; want %+v", text, got, told.Rate, err, f)
	}
	if got, _, err := read(json.RawMessage(`{}`)); err != nil || !reflect.DeepEqual(got, Filter{}) {
		t.Errorf("nothing: read %+v, err %v", got, err)
	}
}
