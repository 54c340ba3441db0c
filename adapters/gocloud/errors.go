package sqlqpubsub

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
	"gocloud.dev/gcerrors"

	"github.com/sqlq/sqlq/sqlq"
)

// codes are those of the errors of sqlq.
var codes = []struct {
	err  error
	code gcerrors.ErrorCode
}{
	{context.Canceled, gcerrors.Canceled},
	{context.DeadlineExceeded, gcerrors.DeadlineExceeded},
	{ErrNoSubscriber, gcerrors.NotFound},
	{sqlq.ErrNoQueue, gcerrors.NotFound},
	{sqlq.ErrSchemaMissing, gcerrors.NotFound},
	{sqlq.ErrPermissionDenied, gcerrors.PermissionDenied},
	{sqlq.ErrHidden, gcerrors.PermissionDenied},
	{sqlq.ErrTooFewConnections, gcerrors.ResourceExhausted},
	{sqlq.ErrInvalidEndpoint, gcerrors.InvalidArgument},
	{sqlq.ErrInvalidName, gcerrors.InvalidArgument},
	{sqlq.ErrInvalidTime, gcerrors.InvalidArgument},
	{sqlq.ErrHeadersTooLarge, gcerrors.InvalidArgument},
	{sqlq.ErrBodyTooLarge, gcerrors.InvalidArgument},
	{sqlq.ErrEncode, gcerrors.InvalidArgument},
	{sqlq.ErrInHandler, gcerrors.FailedPrecondition},
	{sqlq.ErrAlreadyRunning, gcerrors.FailedPrecondition},
	{sqlq.ErrListenURLMismatch, gcerrors.FailedPrecondition},
	{sqlq.ErrSettled, gcerrors.FailedPrecondition},
	{sqlq.ErrLeaseLost, gcerrors.FailedPrecondition},
	{sqlq.ErrClosed, gcerrors.FailedPrecondition},
}

// errorCode returns the code of an error of the library or of the database.
func errorCode(err error) gcerrors.ErrorCode {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	switch state := sqlState(err); {
	case state == "":
		return gcerrors.Unknown
	case state[:2] == "28", state == "42501":
		return gcerrors.PermissionDenied
	case state == "3D000": // the database
		return gcerrors.NotFound
	case state[:2] == "53":
		return gcerrors.ResourceExhausted
	case state == "57014": // query_canceled, by a timeout of the server
		return gcerrors.DeadlineExceeded
	}
	return gcerrors.Internal
}

// sqlState returns the SQLSTATE of an error of the server; "" if it is none.
func sqlState(err error) string {
	var server *pgconn.PgError
	if errors.As(err, &server) && len(server.Code) == 5 {
		return server.Code
	}
	return ""
}

// isRetryable reports whether an error passes, and nothing was stored: the server was not reached or asked, is not ready, has no
// connection left, or has undone the transaction for the sake of others. After a lost connection it is not known whether
// something was stored; that is for the caller to decide.
func isRetryable(err error) bool {
	switch sqlState(err) {
	case "40001", "40P01", "53300", "57P03": // serialization failure, deadlock, too many connections, cannot connect now
		return true
	}
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		return sqlState(err) == "" // refused by the server: the wrong password does not become right
	}
	return pgconn.SafeToRetry(err)
}
