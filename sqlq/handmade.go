package sqlq

import (
	"context"
	"fmt"

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
	handmade.Decide = func(policy any, attempt int, err error) (decision any, fault error) {
		return policy.(RetryPolicy).decideByHand(attempt, err)
	}
}

// decideByHand is handmade.Decide. Nothing is varied by the jitter.
func (p RetryPolicy) decideByHand(attempt int, err error) (Decision, error) {
	p = p.withDefaults()
	if err := p.validate(); err != nil {
		return Decision{}, err
	}
	asked, fault := p.ask(attempt, err)
	if fault != nil {
		return Decision{}, fmt.Errorf("RetryPolicy.Decide: %w", fault)
	}
	d := delivery{outcome: p.decide(attempt, err, asked, 0.5), err: err}
	outcome, delay, _ := d.result()
	return Decision{Outcome: outcome, Delay: delay}, nil
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
