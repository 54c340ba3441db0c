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

// First returns the version of the first migration. Releases before the first one numbered theirs from 1 on; a schema of theirs
// has a version below this one, and cannot be migrated.
func First() int64 { return version(0) }

// Latest returns the version of the newest migration, which is that of this build of the library: it runs on this version of the
// schema, and on later ones as long as their function oldest_library says no more than this.
func Latest() int64 { return version(-1) }

// version returns the version of a file in their order; those below zero are counted from the end.
func version(n int) int64 {
	files, err := fs.Glob(FS, "*.sql")
	if err != nil || len(files) == 0 {
		panic(fmt.Sprintf("migrations: no embedded files: %v", err))
	}
	if n < 0 {
		n += len(files)
	}
	number, _, _ := strings.Cut(files[n], "_")
	v, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		panic(fmt.Sprintf("migrations: file %q has no version number: %v", files[n], err))
	}
	return v
}
