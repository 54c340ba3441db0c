package bench

import (
	"fmt"
	"strconv"
	"time"

	"github.com/sqlq/sqlq/internal/lab"
)

// Result is what a benchmark found: a struct whose JSON fields are documented names, and the same as tables for people.
type Result interface {
	Common() *Head
	Tables() []Table
}

// Head is what all results have.
type Head struct {
	Benchmark       string   `json:"benchmark"`
	Server          Server   `json:"server"`
	N               int      `json:"n"`                // as it was asked for, what it is depends on the benchmark
	Size            int      `json:"size"`             // bytes of a body
	Concurrency     int      `json:"concurrency"`      // as it was asked for; 0: the library's default
	DurationSeconds float64  `json:"duration_seconds"` // of the whole run
	Notes           []string `json:"notes"`
}

// Common implements Result.
func (h *Head) Common() *Head { return h }

// Table is part of a result. The first column is text, the others are numbers.
type Table struct {
	Title   string
	Columns []string
	Rows    [][]string
}

func (t *Table) add(cells ...string) { t.Rows = append(t.Rows, cells) }

// ofRounds writes how many rounds the medians are of.
func ofRounds(n int) string {
	if n == 1 {
		return "one round"
	}
	return fmt.Sprintf("medians of %d rounds", n)
}

// perSecond writes a rate.
func perSecond(rate float64) string { return lab.Thousands(int64(rate+0.5)) + "/s" }

// ratioText writes a ratio.
func ratioText(r float64) string { return strconv.FormatFloat(r, 'f', 2, 64) }

// milliseconds is a duration as JSON has it.
func milliseconds(d time.Duration) float64 { return round(lab.Milliseconds(d), 3) }

func millisecondsText(ms float64) string { return strconv.FormatFloat(ms, 'f', 2, 64) + " ms" }

func microsecondsText(us float64) string { return fmt.Sprintf("%.1f µs", us) }

func mebibytes(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }

// orNone writes a figure that may not have been measured.
func orNone[T any](v *T, write func(T) string) string {
	if v == nil {
		return "not measured"
	}
	return write(*v)
}
