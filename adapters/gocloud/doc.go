// Package sqlqpubsub is a driver for gocloud.dev/pubsub, the Pub/Sub of the Go CDK, over sqlq: topics and subscriptions whose messages are
// in PostgreSQL, in the queues of the application's own database.
//
//	client, err := sqlq.Open(ctx, pool, sqlq.Config{})
//	subscription, err := sqlqpubsub.OpenSubscription(ctx, client, "billing", &sqlqpubsub.SubscriptionOptions{Topics: []string{"orders.placed"}})
//	topic, err := sqlqpubsub.OpenTopic(client, "orders.placed", nil)
//
// A topic is an event type of sqlq, and a subscription is a queue that is subscribed to it: every queue gets every message, and those who
// receive from one queue share its messages. With TopicOptions.Queue a topic sends commands to one queue instead. Services that use sqlq
// itself publish, send and handle the same messages.
//
// # URLs
//
// For pubsub.OpenTopic and pubsub.OpenSubscription, the package registers the scheme "sqlq". See [URLOpener] for the form of the URLs,
// and for where the database is.
//
// # Delivery
//
// Messages are delivered at least once: a message is removed after its Ack. After a Nack, or if the process dies before the removal is
// committed, it is delivered again. A queue gets what is published after it was subscribed; a message whose topic has no queue
// is not stored, and Send returns an error with the code NotFound, unless TopicOptions.AllowNoSubscriber is set. The order of messages is not
// guaranteed. Send returns when the message is committed. Messages that are sent at the same time are stored together, all or none.
//
// # As
//
//   - Topic and Subscription: *sqlq.Client
//   - Message: *sqlq.Received, *sqlq.Incoming
//   - Message.BeforeSend: *sqlq.Envelope, to which Options may be added, such as sqlq.Delay
//   - Message.AfterSend: sqlq.Receipt
//   - Error: any error in the chain, such as *pgconn.PgError or *sqlq.BatchError
package sqlqpubsub
