#!/bin/sh
# Makes a container image from this machine's PostgreSQL, for a container engine that cannot reach a registry:
#
#   sh internal/devpg/testdata/image.sh podman /usr/lib/postgresql/15/bin sqlq-test
#   SQLQ_POSTGRES_IMAGE=localhost/sqlq-test go test ./internal/devpg -run Container
#
# The image has what internal/devpg requires: sh, initdb and postgres in PATH, and a user postgres.
set -eu
engine=$1 bin=$2 image=$3
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
add() { # a file or folder at its own path, and the targets of links on the way
	tar -C / -chf - "${1#/}" | tar -C "$root" -xf -
}
share=$("$bin/pg_config" --sharedir 2>/dev/null || echo "${bin%/bin}/share")
mkdir -p "$root/tmp" "$root/etc" "$root/usr/bin" "$root/var/lib/postgresql"
ln -s usr/bin "$root/bin"
chmod 1777 "$root/tmp" "$root/var/lib/postgresql"
echo 'postgres:x:999:999::/var/lib/postgresql:/bin/sh' >"$root/etc/passwd"
echo 'postgres:x:999:' >"$root/etc/group"
add "$bin"
add "$share"
[ ! -e /usr/share/zoneinfo/UTC ] || add /usr/share/zoneinfo/UTC
lib=$("$bin/pg_config" --pkglibdir 2>/dev/null || echo "${bin%/bin}/lib")
add "$lib"
for tool in sh rm mkdir cat; do
	add "$(command -v $tool)"
done
# The libraries to which the programs are linked.
ldd "$bin/postgres" "$bin/initdb" "$lib"/*.so /bin/sh /bin/rm 2>/dev/null | sed -n 's|.* \(/[^ ]*\) (0x.*|\1|p; s|^\t\(/[^ ]*\) (0x.*|\1|p' | sort -u |
	while read -r file; do add "$file"; done
tar -C "$root" -cf - . | "$engine" import \
	--change "ENV PATH=$bin:/usr/bin:/bin" --change 'ENV PGDATA=/var/lib/postgresql/data' --change 'VOLUME /var/lib/postgresql' - "$image"
