package sqlq

import (
	"cmp"
	"fmt"
	"maps"
	"sync"
)

// routes says which queue the commands of a type go to. Events have no route: their subscribers are in the database,
// where publish reads them in the publishing transaction, so that none is missed.
type routes struct {
	mu        sync.RWMutex
	byType    map[string]string
	otherwise string // where types without a route go; "": nowhere. Set for deliveries made by hand only
}

// declare adds the commands that endpoints of this process handle.
func (r *routes) declare(endpoints []Endpoint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	byType := maps.Clone(r.byType)
	if byType == nil {
		byType = map[string]string{}
	}
	for _, e := range endpoints {
		for _, h := range e.Handlers {
			if !h.event {
				byType[h.messageType] = e.Name
			}
		}
	}
	r.byType = byType
}

// route returns the queue of a command, "" for an event, or says why there is none.
func (c *Client) route(m Message, publish bool, to string) (string, error) {
	_, event := m.(Event)
	switch {
	case publish && !event:
		return "", fmt.Errorf("%w: send it; if it is an event, give its type the method IsEvent()", ErrNotEvent)
	case publish && to != "":
		return "", fmt.Errorf("%w: an event goes to its subscribers, without To(%q)", ErrIsEvent, to)
	case publish:
		return "", nil
	case event:
		return "", fmt.Errorf("%w: publish it", ErrIsEvent)
	case to != "":
		return to, nil
	}
	c.routes.mu.RLock()
	queue := c.routes.byType[m.MessageType()]
	c.routes.mu.RUnlock()
	if queue = cmp.Or(queue, c.routes.otherwise); queue == "" {
		return "", fmt.Errorf("%w: add its type to Config.Routes, give To(queue), or run its endpoint in this process", ErrNoRoute)
	}
	return queue, nil
}
