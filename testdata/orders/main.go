// Orders writes the input of the demo to standard output, the same bytes
// every time:
//
//	go run ./testdata/orders > testdata/orders.jsonl
//
// Run it again after a change to demo.Order or to demo.GenerateOrders; a test
// fails while the file and the generator differ.
package main

import (
	"bufio"
	"fmt"
	"os"

	"github.com/sqlq/sqlq/internal/demo"
)

func main() {
	out := bufio.NewWriter(os.Stdout)
	err := demo.WriteOrders(out, demo.GenerateOrders())
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "orders:", err)
		os.Exit(1)
	}
}
