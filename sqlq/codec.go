package sqlq

import "encoding/json"

// Codec turns messages into bodies and back. Messages of another content type than the Codec's fail as undecodable.
type Codec struct {
	// ContentType names the format and travels as a header, unless it is "application/json".
	// Default: "application/json". Unit: UTF-8 text of at most 200 bytes. Cost: the header's bytes, in each message.
	ContentType string
	// Encode makes the body of a message.
	// Default: json.Marshal. Cost: its time, for each message that is sent.
	Encode func(message any) ([]byte, error)
	// Decode reads a body into a pointer to the message.
	// Default: json.Unmarshal. Cost: its time, for each attempt.
	Decode func(body []byte, into any) error
}

const jsonContentType = "application/json"

// jsonCodec is the default. Unknown fields are ignored, so that a sender may add some.
var jsonCodec = Codec{ContentType: jsonContentType, Encode: json.Marshal, Decode: json.Unmarshal}
