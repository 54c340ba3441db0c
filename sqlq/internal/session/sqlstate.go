package session

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATEs that the library acts on (PostgreSQL manual, appendix A).
const (
	UndefinedTable        = "42P01"
	InsufficientPrivilege = "42501"
	UniqueViolation       = "23505"
	LockNotAvailable      = "55P03"
	ForeignKeyViolation   = "23503"
	DeadlockDetected      = "40P01"
	QueryCanceled         = "57014" // by statement_timeout, or by an administrator
	UnknownStatement      = "26000"
	DuplicateStatement    = "42P05"
	IdleInTransaction     = "25P03" // idle_in_transaction_session_timeout
	ReadOnlySession       = "25006" // from a standby, or from a session that began while the role was read-only: another session may not be
)

// ServerSaid returns the server's answer without what pgx adds about the round trip.
func ServerSaid(err error) error {
	var batch pgx.ErrPreprocessingBatch
	if errors.As(err, &batch) {
		return batch.Unwrap()
	}
	return err
}

// Unreachable adds to the error of a failed connection attempt what to check.
func Unreachable(err error) error {
	var refused *pgconn.ConnectError
	if errors.As(err, &refused) {
		return fmt.Errorf("cannot connect (does the server run, and does the connection string lead to it?): %w", err)
	}
	return err
}

// State returns the SQLSTATE of the server's answer, or "" if the error is not one.
func State(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// Lost reports whether an error means that the connection is no longer usable, so that it says nothing about the
// message: anything that is not an answer of the server, and the answers with which the server ends a session.
func Lost(err error) bool {
	if err == nil {
		return false
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return true
	}
	return pg.Severity == "FATAL" || pg.Severity == "PANIC" || strings.HasPrefix(pg.Code, "08") || strings.HasPrefix(pg.Code, "57P") ||
		pg.Code == IdleInTransaction || pg.Code == ReadOnlySession
}

// Troubled reports whether an error means that the server could not do what it was asked, for reasons of its own: it is out of
// memory, disk or connections, an administrator's limit ended the statement, or a lock is held for too long.
func Troubled(err error) bool {
	state := State(err)
	return strings.HasPrefix(state, "53") || strings.HasPrefix(state, "58") || state == LockNotAvailable || state == QueryCanceled
}
