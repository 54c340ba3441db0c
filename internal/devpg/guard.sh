folder=$1
shift
exec 4<&0 </dev/null

"$@" 4<&- &
program=$!
{
	read -r line && kill -INT "$program"
	read -r line
	leash=$?
	trap '' TERM
	kill -TERM "$program"
	kill -QUIT "$program"
	[ "$leash" != 0 ]
} <&4 >/dev/null 2>&1 &
watch=$!
exec 4<&-

wait "$program"
status=$?
kill "$watch" 2>/dev/null
if wait "$watch" 2>/dev/null; then
	# The watch ended by itself, not because of a second line: the leash has no holder any more. The lock goes last.
	rm -rf "$folder/data"
	rm -rf "$folder"
fi
exit "$status"
