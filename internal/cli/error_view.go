package cli

import (
	"encoding/json"
	"time"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// failedView is a failed message in JSON.
type failedView struct {
	Number        int64      `json:"number"`
	ID            string     `json:"id"`
	Status        ops.Status `json:"status"`
	Queue         string     `json:"queue"`
	Endpoint      string     `json:"endpoint"`
	Host          string     `json:"host"`
	Type          string     `json:"type"`
	Attempts      int        `json:"attempts"`
	Replays       int        `json:"replays"`
	SentAt        time.Time  `json:"sent_at"`
	ExpiresAt     *time.Time `json:"expires_at"`
	FirstFailedAt time.Time  `json:"first_failed_at"`
	FailedAt      time.Time  `json:"failed_at"`
	ArchivedAt    *time.Time `json:"archived_at"`
	ErrorType     string     `json:"error_type"`
	Error         string     `json:"error"`
	Group         string     `json:"group"`
}

func viewFailed(m ops.FailedMessage) failedView {
	return failedView{m.Number, m.ID, m.Status, m.Queue, m.Endpoint, m.Host, m.Type, m.Attempts, m.Replays, inUTC(m.SentAt), utc(m.ExpiresAt),
		inUTC(m.FirstFailedAt), inUTC(m.FailedAt), utc(m.ArchivedAt), m.ErrorType, m.Error, m.Group}
}

// wholeView is a failed message in JSON with all that was kept of it.
type wholeView struct {
	failedView
	Headers json.RawMessage `json:"headers"`
	Chain   []string        `json:"chain"`
	Stack   string          `json:"stack,omitempty"`
	body
}

func viewWhole(m ops.FailedMessage) wholeView {
	return wholeView{failedView: viewFailed(m), Headers: headersOf(m.Headers), Chain: m.Chain, Stack: m.Stack, body: bodyOf(m.Body)}
}

// detailView is that with the message's history.
type detailView struct {
	wholeView
	History []pastView `json:"history"`
}

type pastView struct {
	At        time.Time  `json:"at"`
	What      string     `json:"what"`
	Operation int64      `json:"operation"`
	Role      string     `json:"role"`
	OSUser    string     `json:"os_user"`
	Host      string     `json:"host"`
	Reason    string     `json:"reason,omitempty"`
	Queue     string     `json:"queue"`
	Attempts  int        `json:"attempts,omitempty"`
	FailedAt  *time.Time `json:"failed_at,omitempty"`
	FailedOn  string     `json:"failed_on,omitempty"`
	Error     string     `json:"error,omitempty"`
	Before    *before    `json:"before,omitempty"` // an edit
}

// before is what an edit replaced.
type before struct {
	Headers json.RawMessage `json:"headers"`
	*body                   // nil: the body stayed
}

func viewDetail(m ops.FailedMessage, history []ops.Past) detailView {
	return detailView{viewWhole(m), viewHistory(history)}
}

func viewHistory(history []ops.Past) []pastView {
	views := []pastView{}
	for _, p := range history {
		past := pastView{At: inUTC(p.At), What: p.What, Operation: p.Operation, Role: p.Role, OSUser: p.OSUser, Host: p.Host, Reason: p.Reason,
			Queue: p.Queue, Attempts: p.Attempts, FailedAt: utc(p.FailedAt), FailedOn: p.FailedOn, Error: p.Error}
		if p.What == "edit" {
			past.Before = &before{Headers: headersOf(p.Headers)}
			if p.Body != nil {
				old := bodyOf(p.Body)
				past.Before.body = &old
			}
		}
		views = append(views, past)
	}
	return views
}

// groupView is a group of failed messages in JSON.
type groupView struct {
	Group     string    `json:"group"`
	Count     int64     `json:"count"`
	Estimated bool      `json:"estimated"`
	Archived  int64     `json:"archived"` // of the count
	Status    string    `json:"status"`   // failed, archived or both
	Queues    []string  `json:"queues"`
	Types     []string  `json:"types"`
	FirstAt   time.Time `json:"first_failed_at"`
	LastAt    time.Time `json:"last_failed_at"`
	Number    int64     `json:"number"` // one of them, whose error this is
	ErrorType string    `json:"error_type"`
	Error     string    `json:"error"`
}

func viewGroup(g ops.Group) groupView {
	status := "both"
	switch g.Archived {
	case 0:
		status = string(ops.StatusFailed)
	case g.Count.N:
		status = string(ops.StatusArchived)
	}
	return groupView{g.Group, g.Count.N, g.Count.Estimated, g.Archived, status, g.Queues, g.Types, inUTC(g.FirstAt), inUTC(g.LastAt), g.Number,
		g.ErrorType, g.Error}
}
