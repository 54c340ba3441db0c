package sqlq

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sqlq/sqlq/sqlq/internal/session"
)

// connect makes sure that there is a connection.
func (r *receiver) connect() error {
	if r.conn != nil && !r.conn.IsClosed() {
		return nil
	}
	var err error
	if r.conn, err = r.run.client.connect(r.run.hardCtx); err != nil {
		return err
	}
	if pg := r.conn.PgConn(); r.conn.Pooled {
		socket := pg.Conn()
		r.socket.Store(&socket)
	} else {
		r.pid.Store(pg.PID())
	}
	r.learnSettings()
	return nil
}

func (r *receiver) disconnect() {
	if r.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	r.conn.Close(ctx)
	r.conn = nil
	r.pid.Store(0)
	r.socket.Store(nil)
}

// lost gives the connection up. Another one may reach another server.
func (r *receiver) lost(err error) {
	r.disconnect()
	r.run.restart()
	r.unreachable(err)
}

// unreachable says that the database cannot be reached, if that is news, and waits a little.
func (r *receiver) unreachable(err error) {
	if r.run.outage.Begin(session.Receive, err) {
		r.run.outage.Wait(r.run.hardCtx, &r.retry)
		return
	}
	r.run.client.log.Warn("sqlq: cannot receive, trying again", "err", err)
	r.retry.Wait(r.run.hardCtx)
}

// rollback ends whatever transaction there is.
func (r *receiver) rollback() {
	if r.conn == nil || r.conn.IsClosed() || r.conn.PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := r.timeout()
	defer cancel()
	if err := r.exec(ctx, `ROLLBACK`); err != nil {
		r.disconnect()
	}
}

func (r *receiver) exec(ctx context.Context, sql string) error {
	_, err := r.conn.Exec(ctx, sql)
	return err
}

// timeout bounds a round trip of the library's own: a network that hangs must not hold a receiver for ever.
func (r *receiver) timeout() (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.run.hardCtx, 30*time.Second)
}

// committed refuses a COMMIT that the server turned into a rollback, because the transaction had failed before.
func committed(tag pgconn.CommandTag) error {
	if tag.String() != "COMMIT" {
		return errors.New("the server rolled the transaction back instead of committing it")
	}
	return nil
}
