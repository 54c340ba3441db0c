package sqlq

import "encoding/json"

// Codec turns messages into bodies and back. Messages of another content type than the Codec's fail as undecodable.
type Codec struct {
	// ContentType names the format and travels as a header, unless it is "application/json". UTF-8 text of at most 200 bytes.
	ContentType string
	Encode      func(message any) ([]byte, error) // writes a body from a message
	// Decode reads a body into a pointer to the message.
	Decode func(body []byte, into any) error
}

const jsonContentType = "application/json"

// jsonCodec is the default. Unknown fields are ignored, so that a sender may add some.
var jsonCodec = Codec{ContentType: jsonContentType, Encode: json.Marshal, Decode: json.Unmarshal}
