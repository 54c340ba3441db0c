package cli

import (
	"net"
	"strings"
	"testing"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

// listen runs a server that does with each connection what serve does, until the test ends.
func listen(t *testing.T, serve func(net.Conn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			go serve(c)
		}
	}()
	return l.Addr().String()
}

// A failed connection names where to and as whom, why, and what comes next; it never shows a password.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	hangsUp := listen(t, func(c net.Conn) { c.Close() })
	silent := listen(t, func(net.Conn) {})
	// It refuses TLS, as a server without it does, and whatever comes then with an error of the protocol: E, its length, and
	// fields that each end with a zero.
	refusing := func(code, text string) string {
		return listen(t, func(c net.Conn) {
			defer c.Close()
			request := make([]byte, 8)
			if _, err := c.Read(request); err != nil {
				return
			}
			if request[4] == 4 { // the request for TLS, 80877103
				_, _ = c.Write([]byte("N"))
				if _, err := c.Read(make([]byte, 1024)); err != nil {
					return
				}
			}
			body := "SFATAL\x00C" + code + "\x00M" + text + "\x00\x00"
			_, _ = c.Write(append([]byte{'E', 0, 0, 0, byte(len(body) + 4)}, body...))
		})
	}
	server := pgtest.Database(t)
	for _, c := range []struct {
		name, url string
		want      []string
		flags     []string
	}{
		{"refused", "postgres://ann:secret@127.0.0.1:1/db", []string{`cannot connect to database "db" on 127.0.0.1:1 as user "ann": connection refused`, "Is the server running, and is 1 its port?", "pg_isready -h 127.0.0.1 -p 1"}, nil},
		{"closes", "postgres://ann:secret@" + hangsUp + "/db?sslmode=disable", []string{"the connection was closed at once", "Does PostgreSQL listen on port"}, nil},
		{"silent", "postgres://ann:secret@" + silent + "/db?connect_timeout=1&sslmode=disable", []string{"no answer within 1s", "firewall"}, nil},
		{"no name", "postgres://ann:secret@sqlq.invalid/db", []string{`The name "sqlq.invalid" is not known here`}, nil},
		{"no socket", "host=/nowhere user=ann password=secret dbname=db", []string{"on socket /nowhere", "there is no such socket", "Is the server running on this machine?"}, nil},
		{"no TLS", "postgres://ann:secret@" + refusing("08P01", "x") + "/db?sslmode=require", []string{"the server refused TLS", "sslmode=prefer"}, nil},
		{"password", "postgres://ann:secret@" + refusing("28P01", "password authentication failed") + "/db", []string{`as user "ann": password authentication failed`, `The password is not that of "ann".`}, nil},
		{"no password", "postgres://ann@" + refusing("28P01", "password authentication failed") + "/db", []string{"A password is needed: set PGPASSWORD"}, nil},
		{"not let in", "postgres://ann:secret@" + refusing("28000", "no pg_hba.conf entry") + "/db?sslmode=disable", []string{"pg_hba.conf lets it not in from here", "If the server wants TLS: sslmode=require"}, nil},
		{"starting", "postgres://ann:secret@" + refusing("57P03", "the database system is starting up") + "/db", []string{"starting up", "try again in a moment"}, nil},
		{"full", "postgres://ann:secret@" + refusing("53300", "too many connections") + "/db", []string{"too many connections", "All connections are in use"}, nil},
		{"no CONNECT", "postgres://ann:secret@" + refusing("42501", "permission denied for database") + "/db", []string{"GRANT CONNECT"}, nil},
		{"no database", server + "&dbname=no%20such", []string{`database "no such" does not exist`, "psql -l -h /", "createdb 'no such'"}, nil},
		{"no role", server + "&user=nobody_there", []string{`as user "nobody_there": role "nobody_there" does not exist`, `there is no role "nobody_there"`}, nil},
		{"--timeout", "postgres://ann:secret@" + silent + "/db?sslmode=disable", []string{"no answer within 100ms", "To wait for longer: --timeout"}, []string{"--timeout=100ms"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			code, out, stderr := command(t, "", append([]string{"--database-url=" + c.url, "queue", "ls"}, c.flags...)...)
			if code != exitConnect || out != "" || strings.Contains(stderr, "secret") {
				t.Errorf("exit code %d\n%s%s", code, out, stderr)
			}
			for _, want := range c.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("no %q in\n%s", want, stderr)
				}
			}
		})
	}
}
