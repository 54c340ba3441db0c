folder=$1
shift
trap : TERM
exec 3<&0 </dev/null

"$@" 3<&- &
program=$!
(
	trap '' TERM
	while read -r _; do :; done
	kill -TERM 0
	sleep 15
	kill -KILL 0
) <&3 >/dev/null 2>&1 &
exec 3<&-

while kill -0 "$program" 2>/dev/null; do
	wait "$program"
done
rm -rf "$folder"
kill -KILL 0
