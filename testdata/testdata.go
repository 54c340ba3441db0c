// Package testdata makes the project's real input available to the demo and
// to tests without their knowing where the source tree lies.
//
// The go tool leaves directories named testdata out of patterns such as
// ./..., but they can be imported by their path.
package testdata

import _ "embed" // for go:embed

// Orders is what a mail campaign brought in a few minutes: JSON lines, one
// order a line, in the order in which they were placed. Read it with
// demo.ReadOrders. The program in testdata/orders wrote it.
//
//go:embed orders.jsonl
var Orders []byte
