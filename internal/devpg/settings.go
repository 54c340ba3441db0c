package devpg

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// superuser is the role that initdb creates and that the URLs name.
const superuser = "postgres"

// address is where a server listens.
type address struct {
	given    string // the URL as the caller gave it; if set, nothing else is
	host     string // the folder with the socket, or 127.0.0.1
	port     int
	password string // "" on a socket: the folder's mode keeps others out
}

// newAddress picks the address at which the folder's server will listen.
func newAddress(f *folder, tcp bool) (address, error) {
	if !tcp {
		return address{host: f.path, port: socketPort}, nil
	}
	// The port is free now. If another process takes it before the server does, the start fails and says so.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return address{}, fmt.Errorf("find a free port for the server: %w", err)
	}
	defer l.Close()
	return address{host: "127.0.0.1", port: l.Addr().(*net.TCPAddr).Port, password: rand.Text()}, nil
}

// settings are those that make a server listen there, and nowhere else.
func (a address) settings() map[string]string {
	if a.password == "" {
		return map[string]string{"port": strconv.Itoa(a.port), "listen_addresses": "", "unix_socket_directories": a.host}
	}
	return map[string]string{"port": strconv.Itoa(a.port), "listen_addresses": a.host, "unix_socket_directories": ""}
}

func (a address) url(database string) string {
	if a.given != "" {
		return withDatabase(a.given, database)
	}
	if database == "" {
		database = "postgres"
	}
	u := url.URL{Scheme: "postgres", User: url.User(superuser), Path: "/" + database}
	// The port is always given, since PGPORT would replace a missing one.
	query := url.Values{"sslmode": {"disable"}}
	if a.password == "" {
		query.Set("host", a.host)
		query.Set("port", strconv.Itoa(a.port))
	} else {
		u.User = url.UserPassword(superuser, a.password)
		u.Host = net.JoinHostPort(a.host, strconv.Itoa(a.port))
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// EitherURL returns the address of a database for clients that connect to whichever server accepts writes: it names both, and
// asks for target_session_attrs=read-write. Both must have been started by Start or Standby.
func EitherURL(database string, a, b *Server) (string, error) {
	if a.address.given != "" || b.address.given != "" || a.address.password != b.address.password {
		return "", errors.New("one URL for two servers needs a server and its standby")
	}
	u, err := url.Parse(a.URL(database))
	if err != nil {
		return "", err
	}
	query := u.Query()
	query.Set("host", a.address.host+","+b.address.host)
	query.Set("port", fmt.Sprintf("%d,%d", a.address.port, b.address.port))
	query.Set("target_session_attrs", "read-write")
	u.Host, u.RawQuery = "", query.Encode()
	return u.String(), nil
}

// withDatabase changes the database in a connection string that pgx has already parsed.
func withDatabase(given, database string) string {
	if database == "" {
		return given
	}
	if u, err := url.Parse(given); err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql") {
		u.Path = "/" + database
		query := u.Query()
		query.Del("dbname") // these two would override the path
		query.Del("database")
		u.RawQuery = query.Encode()
		return u.String()
	}
	// Keywords and values: the last one of a keyword counts.
	return given + " dbname='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(database) + "'"
}

// configuration returns what is appended to the postgresql.conf that initdb wrote. The last line for a setting counts.
func configuration(o Options, a address) (string, error) {
	settings := serverSettings(o)
	settings["unix_socket_permissions"] = "0700"
	maps.Copy(settings, a.settings())
	if !o.Durable && hasSockets {
		settings["dynamic_shared_memory_type"] = "mmap" // in the folder, which is removed even if the postmaster is killed
	}
	maps.Copy(settings, o.Settings)
	return settingLines(settings)
}

// serverSettings are those that do not depend on where the server runs and listens.
func serverSettings(o Options) map[string]string {
	settings := map[string]string{
		"max_connections":           "200",
		"max_prepared_transactions": "20",
		"timezone":                  "UTC",
		"log_timezone":              "UTC",
		"lc_messages":               "C",
		"logging_collector":         "off",
		"log_checkpoints":           "off",
		"autovacuum":                "on",
		"cluster_name":              "sqlq",
	}
	if !o.Durable {
		settings["fsync"] = "off"
		settings["full_page_writes"] = "off"
		settings["synchronous_commit"] = "off"
		settings["shared_buffers"] = "64MB" // several test binaries run at once
	}
	if o.InMemory {
		settings["max_wal_size"] = "256MB" // so that memory does not fill up
	}
	return settings
}

// settingLines formats settings for postgresql.conf and postgresql.auto.conf.
func settingLines(settings map[string]string) (string, error) {
	var b strings.Builder
	b.WriteString("\n# from sqlq\n")
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		value := settings[name]
		if !settingName.MatchString(name) || strings.ContainsAny(value, "\n\r\x00") {
			return "", fmt.Errorf("setting %q = %q cannot be written to postgresql.conf", name, value)
		}
		quoted := strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(value)
		fmt.Fprintf(&b, "%s = '%s'\n", name, quoted)
	}
	return b.String(), nil
}

var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)

// serverEnv returns the environment of initdb and postgres: only what they need to run. PGPORT and PGCLIENTENCODING
// would change the server, LANG would change its messages, and secrets need not reach another user.
func serverEnv(getenv func(string) string) []string {
	env := []string{"LC_ALL=C"}
	for _, name := range []string{
		"PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH",
		"SYSTEMROOT", "TEMP", "TMP", "USERPROFILE", "PATHEXT", "COMSPEC", // Windows
	} {
		if v := getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// hasSockets reports whether the platform's PostgreSQL is used through a socket. (On Windows it can have one, but only
// libpq is sure to support it.)
const hasSockets = runtime.GOOS != "windows"

// socketPort is part of the socket's name. Each server has its own folder, so all can use the same one.
const socketPort = 5432

// maxSocketPath is the longest path of a socket in bytes: 103 on macOS and the BSDs, 107 on Linux.
const maxSocketPath = 103
