// Package session makes the library's own connections and knows how they fail: their settings, whether a transaction pooler
// stands in between, what a server's answer means for a connection (by SQLSTATE), how long to wait before another attempt, and
// what the log says of a database that is away. It knows no message and no endpoint.
package session
