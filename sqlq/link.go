package sqlq

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sqlq/sqlq/sqlq/internal/session"
)

// link is a receive connection: made when it is needed, and again when it was lost, with the pauses in between. Its receiver's
// goroutine owns it; others only cut it (pid, socket).
type link struct {
	run     *runner
	conn    *conn                    // nil: there is none
	retry   session.Backoff          // after it could not be made, or was lost
	trouble session.Backoff          // after a settle that the server could not do
	pid     atomic.Uint32            // of the connection's session; 0: none
	socket  atomic.Pointer[net.Conn] // instead, where the session is a pooler's
}

// connect makes sure that there is a connection.
func (l *link) connect() error {
	if l.conn != nil && !l.conn.IsClosed() {
		return nil
	}
	var err error
	if l.conn, err = l.run.client.connect(l.run.hardCtx); err != nil {
		return err
	}
	if pg := l.conn.PgConn(); l.conn.Pooled {
		socket := pg.Conn()
		l.socket.Store(&socket)
	} else {
		l.pid.Store(pg.PID())
	}
	l.learnSettings()
	return nil
}

func (l *link) disconnect() {
	if l.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	l.conn.Close(ctx)
	l.conn = nil
	l.pid.Store(0)
	l.socket.Store(nil)
}

// lost gives the connection up. Another one may reach another server.
func (l *link) lost(err error) {
	l.disconnect()
	l.run.restart()
	l.unreachable(err)
}

// giveUp gives the connection up without a word: another one may reach another server.
func (l *link) giveUp() {
	l.disconnect()
	l.run.restart()
}

// unreachable says that the database cannot be reached, if that is news, and waits a little.
func (l *link) unreachable(err error) {
	if l.run.outage.Begin(session.Receive, err) {
		l.run.outage.Wait(l.run.hardCtx, &l.retry)
		return
	}
	l.run.client.log.Warn("sqlq: cannot receive, trying again", "err", err)
	l.retry.Wait(l.run.hardCtx)
}

// rollback ends whatever transaction there is.
func (l *link) rollback() {
	if l.conn == nil || l.conn.IsClosed() || l.conn.PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := l.timeout()
	defer cancel()
	if err := l.exec(ctx, `ROLLBACK`); err != nil {
		l.disconnect()
	}
}

func (l *link) exec(ctx context.Context, sql string) error {
	_, err := l.conn.Exec(ctx, sql)
	return err
}

// timeout bounds a round trip of the library's own: a network that hangs must not hold a receiver for ever.
func (l *link) timeout() (context.Context, context.CancelFunc) {
	return context.WithTimeout(l.run.hardCtx, 30*time.Second)
}

// committed refuses a COMMIT that the server turned into a rollback, because the transaction had failed before.
func committed(tag pgconn.CommandTag) error {
	if tag.String() != "COMMIT" {
		return errors.New("the server rolled the transaction back instead of committing it")
	}
	return nil
}
