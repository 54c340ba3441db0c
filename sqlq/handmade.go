package sqlq

import (
	"context"

	"github.com/sqlq/sqlq/sqlq/internal/handmade"
)

func init() {
	handmade.Ready = func(incoming, config any, otherwise string) (func() []handmade.Sent, error) {
		return incoming.(*Incoming).readyByHand(config.(Config), otherwise)
	}
	handmade.Encode = func(config, message any) (body []byte, contentType string, err error) {
		return newCodecs(config.(Config).Codecs).encode(message)
	}
	handmade.Decode = func(config any, contentType string, body []byte, into any) error {
		return newCodecs(config.(Config).Codecs).decode(contentType, body, into)
	}
}

// readyByHand is handmade.Ready: it makes a Client that can do all but reach a database.
func (in *Incoming) readyByHand(config Config, otherwise string) (sent func() []handmade.Sent, err error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	in.client = &Client{config: config, log: config.Logger, routes: routes{byType: config.Routes, otherwise: otherwise}}
	in.codecs, in.ctx = config.codecs, context.WithValue(context.Background(), handlerContext{}, true)
	return func() (all []handmade.Sent) {
		in.mu.Lock()
		defer in.mu.Unlock()
		for _, e := range in.out {
			all = append(all, handmade.Sent{Queue: e.Queue, Outgoing: e.Outgoing})
		}
		return all
	}, nil
}
