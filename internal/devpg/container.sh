# The first process of a server's container. Its standard input is the leash, which only the process that owns the server
# holds: the first line is the superuser's password, a second one asks for PostgreSQL's fast shutdown, and its end, when that
# process has died for whatever reason, ends the server immediately. When this process ends, so does the container.
IFS= read -r password || exit 1
: "${PGDATA:=/tmp/sqlq-data}"
umask 077
mkdir -p "$PGDATA" || exit
printf '%s\n' "$password" | initdb --pgdata="$PGDATA" --pwfile=/dev/stdin --auth=scram-sha-256 $SQLQ_INITDB >/dev/null || exit
echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"

exec 4<&0 </dev/null
postgres -D "$PGDATA" "$@" 4<&- &
server=$!
trap 'kill -INT "$server"' INT TERM
{
	read -r line && kill -INT "$server"
	read -r line
	kill -KILL "$server"
} <&4 >/dev/null 2>&1 &
watch=$!
exec 4<&-

# A signal interrupts the wait.
while kill -0 "$server" 2>/dev/null; do
	wait "$server"
	status=$?
done
kill "$watch" 2>/dev/null
exit "$status"
