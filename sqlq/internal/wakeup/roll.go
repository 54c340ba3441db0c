package wakeup

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// Bells come and go while the session listens. It keeps its connection: its next round listens for those that have come, and gives
// up what it holds for those that have gone.

// Add makes the Listener listen for further bells. Until it does, and while it is not connected, their endpoints poll.
func (l *Listener) Add(bells ...*Bell) {
	for _, b := range bells {
		b.listener = l
	}
	l.add(bells)
}

// Remove makes the Listener leave the watch over the bells' queues to others, and listen for them no longer. It returns when that is
// so, or when ctx ends; nobody may attend to the bells any more.
func (l *Listener) Remove(ctx context.Context, bells ...*Bell) {
	select {
	case <-l.remove(bells):
	case <-ctx.Done():
	}
}

// revise lets the session follow the bells that have come and gone. Those that have gone are first: one that has come may be for the
// same queue.
func (l *Listener) revise(ctx context.Context, c *session.Conn) error {
	come, gone, left := l.revision()
	defer func() { // after an error too: what a session held ends with it
		for _, left := range left {
			close(left)
		}
	}()
	if err := l.dismiss(ctx, c, gone); err != nil {
		return err
	}
	return l.welcome(ctx, c, come)
}

// dismiss gives up what the session holds for bells that have gone.
func (l *Listener) dismiss(ctx context.Context, c *session.Conn, bells []*Bell) error {
	if len(bells) == 0 {
		return nil
	}
	heard, asleep, watched := l.heldFor(bells)
	b := &pgx.Batch{}
	if len(asleep) > 0 {
		l.Store.Wakeups.SetAwake(b, asleep)
	}
	if len(watched) > 0 {
		l.Store.Wakeups.LeaveWatch(b, watched)
	}
	if b.Len() > 0 {
		if err := c.SendBatch(ctx, b).Close(); err != nil {
			return fmt.Errorf("release the locks of sleepers: %w", err)
		}
	}
	sql := ""
	for _, table := range heard {
		sql += "UNLISTEN " + table.CallChannel() + ";"
	}
	for _, table := range watched {
		sql += "UNLISTEN " + table.Channel() + ";"
	}
	if _, err := c.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		return fmt.Errorf("unlisten: %w", err)
	}
	l.strike(bells)
	return nil
}

// welcome listens for bells that have come, and rings them: what was sent before did not.
func (l *Listener) welcome(ctx context.Context, c *session.Conn, bells []*Bell) error {
	if len(bells) == 0 {
		return nil
	}
	found, err := l.Store.Tables.Ready(ctx, c, namesOf(bells))
	if err != nil {
		return fmt.Errorf("find the queues: %w", err)
	}
	if _, err := c.PgConn().Exec(ctx, listenForCalls(found)).ReadAll(); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	l.enrol(bells, found)
	for _, bell := range bells {
		bell.Ring(Called)
	}
	return nil
}

// listenForCalls listens for calls to the queues of tables, as far as there are any.
func listenForCalls(tables []store.TableID) (sql string) {
	for _, table := range tables {
		if table != 0 {
			sql += "LISTEN " + table.CallChannel() + ";"
		}
	}
	return sql
}
