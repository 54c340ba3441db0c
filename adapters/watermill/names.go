package sqlqwatermill

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"strings"
)

// Limits of sqlq, in bytes, and what names of sqlq may contain besides ASCII letters and digits.
const (
	maxType, typeMarks   = 200, "._/:-"
	maxQueue, queueMarks = 60, "._-"
)

// separator stands between consumer group and topic in the name of a queue.
const separator = "--"

// EventType returns the type of the events that are the messages of a topic. It is the topic itself if that is 1 to 200 ASCII letters,
// digits and . _ / : -, beginning with a letter or digit. Any other topic becomes a readable part, a hyphen, and 26 characters of a
// SHA-256, so different topics always have different types. Error: ErrNoTopic.
func EventType(topic string) (string, error) {
	if topic == "" {
		return "", ErrNoTopic
	}
	if isName(topic, maxType, typeMarks) && !looksHashed(topic) {
		return topic, nil
	}
	return hashed(topic, maxType, typeMarks, topic), nil
}

// QueueName returns the name of the queue in which a consumer group has the messages of a topic. It is the topic for the empty group, and
// group--topic for others, if that is a name for a queue: 1 to 60 ASCII letters, digits, dots, hyphens and underscores,
// beginning with a letter or digit. Otherwise, and if "--" would make it ambiguous, it ends with a hash of both as the types of
// EventType do, so different groups and topics always have different queues. Error: ErrNoTopic.
func QueueName(consumerGroup, topic string) (string, error) {
	if topic == "" {
		return "", ErrNoTopic
	}
	name, plain := topic, !strings.Contains(topic, separator)
	if consumerGroup != "" {
		// The first separator ends the group, whatever the topic contains. Topics begin with a letter or digit.
		name = consumerGroup + separator + topic
		plain = !strings.Contains(consumerGroup+"-", separator) && isName(topic, maxQueue, queueMarks)
	}
	if plain && isName(name, maxQueue, queueMarks) && !looksHashed(name) {
		return name, nil
	}
	return hashed(name, maxQueue, queueMarks, consumerGroup, topic), nil
}

// isName reports whether a name begins with an ASCII letter or digit, has only those and marks, and is not too long.
func isName(name string, longest int, marks string) bool {
	for i, c := range []byte(name) {
		switch {
		case isAlphanumeric(c):
		case i == 0 || strings.IndexByte(marks, c) < 0:
			return false
		}
	}
	return name != "" && len(name) <= longest
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

const (
	hashAlphabet = "abcdefghijklmnopqrstuvwxyz234567"
	hashLength   = 26 // of 128 bits
)

var hashText = base32.NewEncoding(hashAlphabet).WithPadding(base32.NoPadding)

// hashed makes a name of limited length that is different for different parts.
func hashed(readable string, longest int, marks string, parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		_ = binary.Write(h, binary.BigEndian, uint64(len(part))) // so that the parts cannot run into each other
		h.Write([]byte(part))
	}
	name := []byte(readable[:min(len(readable), longest-hashLength-1)])
	for i, c := range name {
		if !isAlphanumeric(c) && strings.IndexByte(marks, c) < 0 {
			name[i] = '_'
		}
	}
	if !isAlphanumeric(name[0]) {
		name[0] = 'x'
	}
	return fmt.Sprintf("%s-%s", name, hashText.EncodeToString(h.Sum(nil)[:16]))
}

// looksHashed reports whether a name could be one that hashed has made. Such topics are hashed themselves.
func looksHashed(name string) bool {
	at := len(name) - hashLength - 1
	return at > 0 && name[at] == '-' && strings.Trim(name[at+1:], hashAlphabet) == ""
}
