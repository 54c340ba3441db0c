package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// page is what Enter has opened: a queue, a group of failures, or a message.
type page struct {
	kind   pageKind
	name   string // of the queue, the group, or the message: its number, for a ready one its place
	queue  string // of a ready message
	places [2]place
	tab    int // of a queue: its ready messages, or the failed ones

	filledOnce bool
	err        error
	ready      []ops.Message
	failed     []ops.FailedMessage
	text       string // all that is known of a message
	scroll     int
}

type pageKind int

const (
	queuePage pageKind = iota
	groupPage
	messagePage
)

// pageRows is how many messages a page lists.
const pageRows = 200

func (p page) title() string {
	switch p.kind {
	case queuePage:
		return "queue " + p.name
	case groupPage:
		return "group " + p.name
	default:
		return "message " + p.name
	}
}

// filled is the page with what was read for it.
func (p page) filled(with page, err error) page {
	p.ready, p.failed, p.text, p.filledOnce, p.err = with.ready, with.failed, with.text, true, err
	return p
}

// open opens what is chosen.
func (m topModel) open() (tea.Model, tea.Cmd) {
	l := m.list()
	if len(l.shown) == 0 {
		return m, nil
	}
	key := l.shown[l.chosen(m.at().key)].key
	opened := page{name: key}
	n := len(m.pages)
	switch {
	case n == 0 && m.focus == queuesSection:
		opened.kind = queuePage
	case n == 0 && m.focus == groupsSection:
		opened.kind = groupPage
		opened.places[0].sort = failedByTime
	case n == 0 || m.pages[n-1].kind == messagePage:
		return m, nil
	default:
		opened.kind = messagePage
		if p := m.pages[n-1]; p.kind == queuePage && p.tab == 0 {
			for _, ready := range p.ready {
				if fmt.Sprint(ready.Seq) == key {
					opened.queue, opened.text, opened.filledOnce = p.name, readyText(p.name, ready), true
				}
			}
		}
	}
	opened.places[1].sort = failedByTime
	m.pages, m.filter = append(m.pages, opened), ""
	if opened.filledOnce {
		return m, nil
	}
	return m, m.fill(opened)
}

// fill reads what a page shows. What cannot be read, or not by this role, stays as it was.
func (m topModel) fill(p page) tea.Cmd {
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(m.ctx, readWithin)
		defer cancel()
		var errs []error
		failed := func(f ops.Filter) {
			list, err := m.source.failed(ctx, f)
			if errs = append(errs, err); err == nil {
				p.failed = list
			}
		}
		switch p.kind {
		case queuePage:
			ready, err := m.source.peek(ctx, p.name, pageRows)
			if errs = append(errs, err); err == nil {
				p.ready = ready
			}
			failed(ops.Filter{Queue: p.name, Limit: pageRows})
		case groupPage:
			failed(ops.Filter{Group: p.name, Limit: pageRows})
		case messagePage:
			shown, err := m.source.show(ctx, p.name)
			if errs = append(errs, err); err == nil {
				p.text = m.text(shown)
			}
		}
		return pageMsg{p, errors.Join(errs...)}
	}
}

// failedText is all that is known of a failed message, as `sqlq error show` has it.
func failedText(e *env, failed ops.FailedMessage) string {
	var text bytes.Buffer
	writeFailed(e, &text, failed)
	return text.String()
}

// readyText is all that is known of a ready message.
func readyText(queue string, m ops.Message) string {
	var text bytes.Buffer
	field(&text, "place", fmt.Sprint(m.Seq))
	field(&text, "id", m.ID)
	field(&text, "type", m.Type)
	field(&text, "queue", queue)
	field(&text, "attempts", fmt.Sprint(m.Attempt))
	field(&text, "sent", fullTime(m.SentAt))
	if m.ExpiresAt != nil {
		field(&text, "expires", fullTime(*m.ExpiresAt))
	}
	block(&text, "headers", pretty(m.Headers))
	writeBody(&text, m.Body)
	return strings.TrimRight(text.String(), "\n")
}
