# Starts PostgreSQL in a folder, says "ready", waits for the end of standard input, stops it and removes the folder.
# $1 folder of the binaries, $2 folder of the cluster, $3 port.
set -eu
bin=$1 folder=$2 port=$3
# initdb and postgres refuse to run as root.
as=()
if [ "$(id -u)" = 0 ]; then
    id -u postgres >/dev/null 2>&1 || useradd --system postgres
    chown postgres "$folder"
    as=(setpriv --reuid postgres --regid postgres --clear-groups)
fi
cd "$folder"
"${as[@]}" "$bin/initdb" -D "$folder/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$folder/log" 2>&1
"${as[@]}" "$bin/postgres" -D "$folder/data" -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories="$folder" \
    -c max_connections=200 >>"$folder/log" 2>&1 </dev/null &
server=$!
trap 'kill -QUIT $server 2>/dev/null || true; wait $server 2>/dev/null || true; rm -rf "$folder"' EXIT
# Signals meant for the test must not end the watchdog before its server.
trap '' INT TERM
for _ in $(seq 200); do
    "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" && break
    kill -0 $server || { cat "$folder/log" >&2; exit 1; }
    sleep 0.05
done
"$bin/pg_isready" -q -h 127.0.0.1 -p "$port" || { cat "$folder/log" >&2; exit 1; }
echo ready
exec >/dev/null
cat >/dev/null
