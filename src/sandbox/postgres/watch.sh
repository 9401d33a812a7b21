# Runs a PostgreSQL server for as long as the process that asked for it lives, whatever becomes of that:
# its end of our standard input closes when it dies, by kill -9 too. Then the folder goes as well.
#   sh watch.sh FOLDER SERVER [ARGUMENT]...
# A line on standard input names the signal that ends the server (INT, QUIT, KILL).
folder=$1
shift
exec 3<&0
"$@" </dev/null >>"$folder/log" 2>&1 3<&- &
server=$!
{
    signal=
    read -r signal || : >"$folder/orphaned"
    kill -s "${signal:-QUIT}" "$server"
} <&3 &
reader=$!
exec 3<&-
wait "$server"
kill "$reader" 2>/dev/null
[ -e "$folder/orphaned" ] && cd / && rm -rf "$folder"
exit 0
