package session

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// handlerTracer is the program's tracer on a receive connection: it sees what HandleTx handlers run, and nothing that the
// library runs there for itself.
type handlerTracer struct {
	pgx.QueryTracer
	batch   pgx.BatchTracer // each is nil if the program's tracer does not implement it
	copying pgx.CopyFromTracer
	prepare pgx.PrepareTracer

	ofHandler func(ctx context.Context) bool
}

// handlerTracer returns nil if there is nothing to trace.
func (c *Connector) handlerTracer(tracer pgx.QueryTracer, why Purpose) pgx.QueryTracer {
	if tracer == nil || why != Receive {
		return nil
	}
	t := &handlerTracer{QueryTracer: tracer, ofHandler: c.OfHandler}
	t.batch, _ = tracer.(pgx.BatchTracer)
	t.copying, _ = tracer.(pgx.CopyFromTracer)
	t.prepare, _ = tracer.(pgx.PrepareTracer)
	return t
}

// TraceQueryStart implements pgx.QueryTracer.
func (t *handlerTracer) TraceQueryStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if t.ofHandler(ctx) {
		return t.QueryTracer.TraceQueryStart(ctx, conn, data)
	}
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (t *handlerTracer) TraceQueryEnd(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryEndData) {
	if t.ofHandler(ctx) {
		t.QueryTracer.TraceQueryEnd(ctx, conn, data)
	}
}

// TraceBatchStart implements pgx.BatchTracer.
func (t *handlerTracer) TraceBatchStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	if t.batch != nil && t.ofHandler(ctx) {
		return t.batch.TraceBatchStart(ctx, conn, data)
	}
	return ctx
}

// TraceBatchQuery implements pgx.BatchTracer.
func (t *handlerTracer) TraceBatchQuery(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchQueryData) {
	if t.batch != nil && t.ofHandler(ctx) {
		t.batch.TraceBatchQuery(ctx, conn, data)
	}
}

// TraceBatchEnd implements pgx.BatchTracer.
func (t *handlerTracer) TraceBatchEnd(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchEndData) {
	if t.batch != nil && t.ofHandler(ctx) {
		t.batch.TraceBatchEnd(ctx, conn, data)
	}
}

// TraceCopyFromStart implements pgx.CopyFromTracer.
func (t *handlerTracer) TraceCopyFromStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceCopyFromStartData) context.Context {
	if t.copying != nil && t.ofHandler(ctx) {
		return t.copying.TraceCopyFromStart(ctx, conn, data)
	}
	return ctx
}

// TraceCopyFromEnd implements pgx.CopyFromTracer.
func (t *handlerTracer) TraceCopyFromEnd(ctx context.Context, conn *pgx.Conn, data pgx.TraceCopyFromEndData) {
	if t.copying != nil && t.ofHandler(ctx) {
		t.copying.TraceCopyFromEnd(ctx, conn, data)
	}
}

// TracePrepareStart implements pgx.PrepareTracer.
func (t *handlerTracer) TracePrepareStart(ctx context.Context, conn *pgx.Conn, data pgx.TracePrepareStartData) context.Context {
	if t.prepare != nil && t.ofHandler(ctx) {
		return t.prepare.TracePrepareStart(ctx, conn, data)
	}
	return ctx
}

// TracePrepareEnd implements pgx.PrepareTracer.
func (t *handlerTracer) TracePrepareEnd(ctx context.Context, conn *pgx.Conn, data pgx.TracePrepareEndData) {
	if t.prepare != nil && t.ofHandler(ctx) {
		t.prepare.TracePrepareEnd(ctx, conn, data)
	}
}
