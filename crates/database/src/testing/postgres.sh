# Starts PostgreSQL in a folder and says "ready"; then obeys "crash" and "start", a line each, answered with "crashed" and
# "ready". At the end of standard input it stops the server and removes the folder.
# $1 folder of the binaries, $2 folder of the cluster, $3 port, then arguments for the server.
set -eu
bin=$1 folder=$2 port=$3
shift 3
settings=("$@")
# initdb and postgres refuse to run as root.
as=()
if [ "$(id -u)" = 0 ]; then
    id -u postgres >/dev/null 2>&1 || useradd --system postgres
    chown postgres "$folder"
    as=(setpriv --reuid postgres --regid postgres --clear-groups)
fi
cd "$folder"
"${as[@]}" "$bin/initdb" -D "$folder/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$folder/log" 2>&1
server=
# An immediate stop: no checkpoint, no goodbye. The next start recovers from the log, as after a crash of the machine.
crash() {
    kill -QUIT "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
}
trap 'crash; rm -rf "$folder"' EXIT
# A pool per service of every platform, and on a machine of many cores many tests have one at once.
connections=1000
start() {
    "${as[@]}" "$bin/postgres" -D "$folder/data" -p "$port" -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories="$folder" -c max_connections=$connections "${settings[@]}" >>"$folder/log" 2>&1 </dev/null &
    server=$!
    # A minute: recovery on a slow disk.
    for _ in $(seq 1200); do
        "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" && return
        kill -0 $server || break
        sleep 0.05
    done
    cat "$folder/log" >&2
    exit 1
}
start
# Signals meant for the test must not end the watchdog before its server.
trap '' INT TERM
echo ready
while read -r order; do
    case $order in
        crash) crash && echo crashed ;;
        start) start && echo ready ;;
    esac
done
