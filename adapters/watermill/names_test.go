package sqlqwatermill

import (
	"errors"
	"strings"
	"testing"
)

// Topics that are allowed as names of sqlq stay what they are, others are recognisable.
func TestNames(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("long", 60)
	for _, c := range []struct{ group, topic, wantType, wantQueue string }{
		{"", "orders", "orders", "orders"},
		{"billing", "orders", "orders", "billing--orders"},
		{"a-b", "sales.OrderPlaced_v2", "sales.OrderPlaced_v2", "a-b--sales.OrderPlaced_v2"},
		{"", "a--b", "a--b", "a--b-#"},
		{"a", "b--c", "b--c", "a--b--c"},
		{"a--b", "c", "c", "a--b--c-#"},
		{"a-", "b", "b", "a---b-#"},
		{"", "orders/eu:1", "orders/eu:1", "orders_eu_1-#"},
		{"g", "orders/eu:1", "orders/eu:1", "g--orders_eu_1-#"},
		{"", "Zahlungen für 7", "Zahlungen_f__r_7-#", "Zahlungen_f__r_7-#"},
		{"ü", "t", "t", "x_--t-#"},
		{"", "\xff\x00", "x_-#", "x_-#"},
		{"", long, long[:173] + "-#", long[:33] + "-#"},
		{"", "_a", "xa-#", "xa-#"},
	} {
		eventType, err := EventType(c.topic)
		if err != nil || withoutHash(eventType) != c.wantType {
			t.Errorf("topic %q has type %q, %v, want %q", c.topic, eventType, err, c.wantType)
		}
		queue, err := QueueName(c.group, c.topic)
		if err != nil || withoutHash(queue) != c.wantQueue {
			t.Errorf("group %q and topic %q have queue %q, %v, want %q", c.group, c.topic, queue, err, c.wantQueue)
		}
		checkNames(t, c.group, c.topic)
	}
	if _, err := EventType(""); !errors.Is(err, ErrNoTopic) {
		t.Errorf("the empty topic: %v", err)
	}
	if _, err := QueueName("group", ""); !errors.Is(err, ErrNoTopic) {
		t.Errorf("the empty topic: %v", err)
	}
}

func withoutHash(name string) string {
	if looksHashed(name) {
		return name[:len(name)-hashLength] + "#"
	}
	return name
}

func checkNames(t *testing.T, group, topic string) {
	t.Helper()
	eventType, err := EventType(topic)
	if err != nil || !isName(eventType, maxType, typeMarks) {
		t.Errorf("topic %q has type %q, %v", topic, eventType, err)
	}
	queue, err := QueueName(group, topic)
	if err != nil || !isName(queue, maxQueue, queueMarks) {
		t.Errorf("group %q and topic %q have queue %q, %v", group, topic, queue, err)
	}
}

// Different topics have different types, and different groups and topics different queues.
func FuzzNamesAreDifferent(f *testing.F) {
	hash, _ := EventType("ä")
	queue, _ := QueueName("a--b", "c")
	for _, c := range [][4]string{
		{"a", "b", "", "a--b"}, {"a--b", "c", "a", "b--c"}, {"a-", "b", "a", "-b"}, {"", "ä", "", "ö"}, {"", "ä", "", hash},
		{"a--b", "c", "", queue}, {"ab", "c", "a", "bc"}, {"\xff", "t", "\xfe", "t"},
	} {
		f.Add(c[0], c[1], c[2], c[3])
	}
	f.Fuzz(func(t *testing.T, group, topic, otherGroup, otherTopic string) {
		if topic == "" || otherTopic == "" {
			return
		}
		checkNames(t, group, topic)
		eventType, _ := EventType(topic)
		otherType, _ := EventType(otherTopic)
		if (eventType == otherType) != (topic == otherTopic) {
			t.Errorf("topics %q and %q have types %q and %q", topic, otherTopic, eventType, otherType)
		}
		queue, _ := QueueName(group, topic)
		otherQueue, _ := QueueName(otherGroup, otherTopic)
		if (queue == otherQueue) != (group == otherGroup && topic == otherTopic) {
			t.Errorf("%q, %q and %q, %q have queues %q and %q", group, topic, otherGroup, otherTopic, queue, otherQueue)
		}
	})
}
