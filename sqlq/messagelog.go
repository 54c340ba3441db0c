package sqlq

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Bounds of what the log says of single messages: of each kind of line, endpoint and message type so many are named in an interval,
// and of the others how many there were. A type of which thousands fail each second does not fill a disk.
const (
	namedLines   = 10
	lineInterval = 10 * time.Second
	maxLineKinds = 1_000 // beyond, types share one
)

// messageLog writes lines about single messages, bounded. mu guards what is in it; lines are written outside of it.
type messageLog struct {
	log *slog.Logger

	mu     sync.Mutex
	byKind map[lineKind]*lines
}

type lineKind struct{ text, endpoint, messageType string }

// lines are those of one kind since began.
type lines struct {
	kind  lineKind
	level slog.Level
	began time.Time
	named int
	left  int         // were not named
	last  error       // of these; nil: they had none
	timer *time.Timer // says how many were left when the interval ends; nil: none was
}

func newMessageLog(log *slog.Logger) *messageLog {
	return &messageLog{log: log, byKind: map[lineKind]*lines{}}
}

// say writes a line about a message, or counts it among those that are not named. ctx is the handler's, where one has run, so that a
// slog.Handler finds in it what it looks for, a trace for example.
func (l *messageLog) say(ctx context.Context, level slog.Level, text, endpoint, messageType string, err error, more ...any) {
	if !l.log.Enabled(ctx, level) {
		return
	}
	messageType = loggedText(messageType)
	if l.names(lineKind{text, endpoint, messageType}, level, err) {
		attrs := append([]any{"endpoint", endpoint, "type", messageType}, more...)
		if err != nil {
			attrs = append(attrs, "err", loggedError(err))
		}
		l.log.Log(ctx, level, text, attrs...)
	}
}

// names reports whether a line may be written; else it is counted.
func (l *messageLog) names(kind lineKind, level slog.Level, err error) bool {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.byKind[kind]
	if k == nil {
		k = l.add(kind, level, now)
	}
	if k.timer == nil && now.Sub(k.began) >= lineInterval {
		k.began, k.named = now, 0
	}
	if k.named < namedLines {
		k.named++
		return true
	}
	k.left, k.last = k.left+1, err
	if k.timer == nil {
		k.timer = time.AfterFunc(k.began.Add(lineInterval).Sub(now), func() { l.sum(k) })
	}
	return false
}

// add begins the lines of a kind. Where there are many, those that nothing is left to say of are forgotten, and if that does not
// help the types of an endpoint share one.
func (l *messageLog) add(kind lineKind, level slog.Level, now time.Time) *lines {
	if len(l.byKind) >= maxLineKinds {
		for old, k := range l.byKind {
			if k.timer == nil && now.Sub(k.began) >= lineInterval {
				delete(l.byKind, old)
			}
		}
	}
	if len(l.byKind) >= maxLineKinds {
		if kind.messageType = "of many types"; l.byKind[kind] != nil {
			return l.byKind[kind]
		}
	}
	k := &lines{kind: kind, level: level, began: now}
	l.byKind[kind] = k
	return k
}

// sum says how many lines of a kind were not written, and begins its next interval.
func (l *messageLog) sum(k *lines) {
	l.mu.Lock()
	left, last := k.left, k.last
	if k.timer != nil {
		k.timer.Stop()
	}
	k.began, k.named, k.left, k.last, k.timer = time.Now(), 0, 0, nil, nil
	l.mu.Unlock()
	if left == 0 {
		return // somebody else has said it
	}
	attrs := []any{"endpoint", k.kind.endpoint, "type", k.kind.messageType, "messages", left}
	if last != nil {
		attrs = append(attrs, "last", loggedError(last))
	}
	l.log.Log(context.Background(), k.level, k.kind.text+"; so many others are not named", attrs...)
}

// flush says what is left to be said.
func (l *messageLog) flush() {
	l.mu.Lock()
	var all []*lines
	for _, k := range l.byKind {
		if k.timer != nil {
			all = append(all, k)
		}
	}
	l.mu.Unlock()
	for _, k := range all {
		l.sum(k)
	}
}
