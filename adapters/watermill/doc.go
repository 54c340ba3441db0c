// Package sqlqwatermill is a Pub/Sub for Watermill over sqlq: a [Publisher] and a [Subscriber] whose messages are in PostgreSQL, in the
// queues of the application's own database.
//
//	client, err := sqlq.Open(ctx, pool, sqlq.Config{})
//	publisher, err := sqlqwatermill.NewPublisher(client, sqlqwatermill.PublisherConfig{})
//	subscriber, err := sqlqwatermill.NewSubscriber(client, sqlqwatermill.SubscriberConfig{ConsumerGroup: "billing"})
//
// A topic is an event type of sqlq. Each consumer group has a queue of its own for each topic, subscribed to that event, so every group
// gets every message, and the processes of a group share its messages. [EventType] and [QueueName] say which they are; services that use
// sqlq itself publish and handle the same events.
//
// A queue gets what is published after it was subscribed, by [Subscriber.Subscribe] or [Subscriber.SubscribeInitialize], and stays
// subscribed when its subscribers are closed. A message that is published before any queue is subscribed to its topic is not stored; with
// PublisherConfig.RequireSubscriber that is an error.
//
// Messages are delivered at least once: a message is removed after its Ack, and is delivered again after a Nack, or if the process dies
// before its removal is committed. The order of messages is not guaranteed.
//
// [NewTxPublisher] publishes as part of a transaction of pgx or database/sql: the messages are stored if and when it commits.
package sqlqwatermill
