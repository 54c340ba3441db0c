package session

import (
	"context"
	"io"
	"net"
	"sync"

	"github.com/jackc/pgx/v5"
)

// Closed returns a closed connection, for a caller that asks for one when there is none. pgx has no other way to make one, so
// it is connected to a fake server that only greets, and then closed.
var Closed = sync.OnceValue(func() *pgx.Conn {
	config, err := pgx.ParseConfig("host=closed user=closed sslmode=disable")
	if err != nil {
		panic(err)
	}
	config.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
	config.DialFunc = func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			startup := make([]byte, 1024)
			if _, err := server.Read(startup); err != nil {
				return
			}
			_, _ = server.Write([]byte("R\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05I")) // authenticated, ready
			_, _ = io.Copy(io.Discard, server)
		}()
		return client, nil
	}
	conn, err := pgx.ConnectConfig(context.Background(), config)
	if err != nil {
		panic(err)
	}
	_ = conn.Close(context.Background())
	return conn
})
