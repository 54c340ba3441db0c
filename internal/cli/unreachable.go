package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Why there is no connection, and what to do about it.

// connectError tells of a connection that failed: where to, as whom, why, and what comes next.
func (e *env) connectError(where string, config *pgx.ConnConfig, err error) error {
	var whys, steps []string
	all := tries(err)
	if others := slices.DeleteFunc(slices.Clone(all), refusedTLS); len(others) > 0 {
		all = others // it was tried without TLS too
	}
	for _, attempt := range all {
		why, next := e.reason(attempt, config)
		if !slices.Contains(whys, why) {
			whys = append(whys, why)
		}
		if next != "" && !slices.Contains(steps, next) {
			steps = append(steps, next)
		}
	}
	err = fmt.Errorf("cannot connect to %s as user %q: %s", where, config.User, strings.Join(whys, "; "))
	if !e.configured() {
		return fmt.Errorf(`%w
Nothing says which database to use. Set SQLQ_DATABASE_URL or DATABASE_URL, or give --database-url:
  postgres://user@host:5432/database
To try sqlq on a throw-away server: sqlq dev`, err)
	}
	for _, step := range steps {
		err = fmt.Errorf("%w\n%s", err, step)
	}
	return err
}

// tries returns the errors of each try: there are several hosts, or addresses of one, and tries with and without TLS.
func tries(err error) []error {
	var failed *pgconn.ConnectError
	if errors.As(err, &failed) {
		err = errors.Unwrap(failed)
	}
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		return several.Unwrap()
	}
	return []error{err}
}

// SQLSTATEs that a server refuses a connection with.
const (
	invalidAuthorization = "28000" // pg_hba.conf has no line, or there is no such role
	invalidPassword      = "28P01"
	noDatabase           = "3D000"
	tooManyConnections   = "53300"
	cannotConnectNow     = "57P03"
)

// reason says why a try failed, and what comes next; "" where that is not known.
func (e *env) reason(attempt error, config *pgx.ConnConfig) (why, next string) {
	var (
		pg      *pgconn.PgError
		dns     *net.DNSError
		op      *net.OpError
		unknown x509.UnknownAuthorityError
		named   x509.HostnameError
		check   *tls.CertificateVerificationError
		timeout net.Error
	)
	port := fmt.Sprint(config.Port)
	switch {
	case errors.As(attempt, &pg):
		return pg.Message, refusal(pg, config)
	case errors.As(attempt, &unknown), errors.As(attempt, &named), errors.As(attempt, &check):
		return innermost(attempt).Error(), "The server's certificate is not the one that is expected: give its authority with sslrootcert=FILE, and the host name that it is made out to."
	case errors.As(attempt, &dns):
		return dns.Err, fmt.Sprintf("The name %q is not known here: is it spelled right, and does it need a VPN or another DNS?", dns.Name)
	case errors.Is(attempt, syscall.ECONNREFUSED):
		return "connection refused", fmt.Sprintf("Nothing listens there. Is the server running, and is %s its port? Ask it: pg_isready -h %s -p %s", port, shellWord(config.Host), port)
	case errors.Is(attempt, fs.ErrNotExist):
		return "there is no such socket", "Is the server running on this machine? If it is on another one, name the host: postgres://user@host:5432/database"
	case errors.Is(attempt, context.DeadlineExceeded), errors.As(attempt, &timeout) && timeout.Timeout():
		within, longer := config.ConnectTimeout, "connect_timeout=60 in the URL"
		if e.timeout > 0 && e.timeout < within {
			within, longer = e.timeout, "--timeout"
		}
		return fmt.Sprintf("no answer within %s", within), fmt.Sprintf("Is the host right, and does a firewall let port %s through? To wait for longer: %s", port, longer)
	case errors.Is(attempt, syscall.EHOSTUNREACH), errors.Is(attempt, syscall.ENETUNREACH):
		return "no way leads there", "Is the host right, and does it need a VPN?"
	case errors.Is(attempt, io.EOF), errors.Is(attempt, io.ErrUnexpectedEOF), errors.Is(attempt, syscall.ECONNRESET):
		return "the connection was closed at once", fmt.Sprintf("Does PostgreSQL listen on port %s, or something else? A proxy or pooler closes it so when the server behind it does not answer.", port)
	case errors.As(attempt, &op):
		return op.Err.Error(), ""
	case refusedTLS(attempt):
		return "the server refused TLS", "It does not speak TLS: sslmode=prefer in the URL goes on without."
	}
	return attempt.Error(), ""
}

// refusal says what comes next when the server has refused a connection.
func refusal(pg *pgconn.PgError, config *pgx.ConnConfig) string {
	switch pg.Code {
	case invalidPassword:
		if config.Password == "" {
			return fmt.Sprintf("A password is needed: set PGPASSWORD, add a line to ~/.pgpass, or write postgres://%s:PASSWORD@…", config.User)
		}
		return fmt.Sprintf("The password is not that of %q. It comes from the URL, PGPASSWORD or ~/.pgpass: sqlq config show says which.", config.User)
	case invalidAuthorization:
		next := fmt.Sprintf("Either there is no role %q, or the server's pg_hba.conf lets it not in from here.", config.User)
		if config.TLSConfig == nil {
			next += " If the server wants TLS: sslmode=require in the URL."
		}
		return next
	case noDatabase:
		return fmt.Sprintf("Which ones there are: psql -l -h %s -p %d -U %s. To make it: createdb %s", shellWord(config.Host), config.Port, shellWord(config.User), shellWord(config.Database))
	case tooManyConnections:
		return "All connections are in use: end some, or raise the limit that the message names."
	case cannotConnectNow:
		return "The server is starting up, shutting down or being restored: try again in a moment."
	case insufficientPrivilege:
		return "The owner of the database lets it in with GRANT CONNECT."
	}
	return pg.Hint
}

// refusedTLS says whether a server does not speak TLS. The driver has no value for that error.
func refusedTLS(err error) bool {
	return strings.Contains(err.Error(), "server refused TLS connection")
}

// shellWord quotes a word for a shell where that would not leave it as it is.
func shellWord(word string) string {
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-:/@%+,=", r))
	}) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// innermost returns the error at the bottom of a chain.
func innermost(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
