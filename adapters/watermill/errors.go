package sqlqwatermill

import "errors"

var (
	// ErrNoTopic: the topic is empty.
	ErrNoTopic = errors.New("the topic is empty")
	// ErrClosed: the Publisher or Subscriber was closed. Make another one.
	ErrClosed = errors.New("it was closed")
	// ErrNoSubscriber: no queue is subscribed to the topic, so its message was not stored. Returned by Publish if
	// PublisherConfig.RequireSubscriber is set. Subscribe first, or call SubscribeInitialize where the program begins.
	ErrNoSubscriber = errors.New("no queue is subscribed to the topic")
	// ErrNacked: the message was nacked. With SubscriberConfig.Retry it is the error of that attempt, and so what operators see of it.
	ErrNacked = errors.New("nacked by the Watermill subscriber")
	// ErrOtherSettings: this process has subscribed the consumer group to the topic already, with another Retry or Deduplicate. All
	// Subscribers of a group that share a Client need the same.
	ErrOtherSettings = errors.New("the group is subscribed in this process with another Retry or Deduplicate")
)
