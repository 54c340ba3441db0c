// Package session makes the library's own connections and knows how they fail: their settings, whether a transaction pooler
// is in between, what a server's answer means for a connection (by SQLSTATE), how long to wait before another attempt, and
// what to log about a database that is away. It knows nothing about messages and endpoints.
package session
