// Package orders is a shop of four programs that know each other's messages and nothing else. The client writes its order and
// sends sales.PlaceOrder in one transaction; Sales writes its own row and publishes sales.OrderPlaced; Billing and Shipping
// subscribe to that.
//
// Start a server in a terminal, at the root of the repository:
//
//	1$ go run ./cmd/sqlq dev
//
// In each of the other terminals, first:
//
//	$ export DATABASE_URL=$(go run ./cmd/sqlq dev --url)
//
// Then start the services, and the client, which places three orders and exits:
//
//	2$ go run ./examples/orders/sales
//	3$ go run ./examples/orders/billing
//	4$ go run ./examples/orders/shipping
//	5$ go run ./examples/orders/client
//
// Stop Shipping while orders keep coming. The others do not notice; when it is back, it ships what it has missed:
//
//	4$ ^C
//	5$ go run ./examples/orders/client
//	4$ go run ./examples/orders/shipping
//
// A second Sales in another terminal shares the work with the first. `go run ./cmd/sqlq top` shows everything.
package orders
