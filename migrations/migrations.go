// Package migrations holds the SQL of sqlq's schema as goose files.
//
// Every statement is unqualified: a migration runs with the wanted schema as search_path, which is what package migrate
// and `sqlq migrate up` do. Teams with tooling of their own can hand FS to goose, or print the SQL with
// `sqlq migrate sql`.
package migrations

import (
	"embed"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// FS holds the migration files, NNNNN_name.sql, in its root.
//
//go:embed *.sql
var FS embed.FS

// Latest returns the version of the newest migration: the only schema version that this build of the library runs on.
func Latest() int64 {
	files, err := fs.Glob(FS, "*.sql")
	if err != nil || len(files) == 0 {
		panic(fmt.Sprintf("migrations: no embedded files: %v", err))
	}
	number, _, _ := strings.Cut(files[len(files)-1], "_")
	v, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		panic(fmt.Sprintf("migrations: file %q has no version number: %v", files[len(files)-1], err))
	}
	return v
}
