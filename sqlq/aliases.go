package sqlq

import "github.com/sqlq/sqlq/sqlq/internal/session"

// Short names of what the engine's files ask package session.

const (
	undefinedTable    = session.UndefinedTable
	insufficientPrivs = session.InsufficientPrivilege
	forReceiving      = session.Receive
)

func sqlState(err error) string     { return session.State(err) }
func connectionLost(err error) bool { return session.Lost(err) }
func serverTrouble(err error) bool  { return session.Troubled(err) }
func serverSaid(err error) error    { return session.ServerSaid(err) }
func unreachable(err error) error   { return session.Unreachable(err) }
