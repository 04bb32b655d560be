#!/bin/sh
# Starts Nchan (nginx's module, Debian: nginx-light libnginx-mod-nchan) on loopback with one worker on core 0, runs
# `notifyx-bench fanout --nchan …` against it with the arguments given here, and stops it.
#
#   bench/nchan.sh target/release/notifyx-bench --notifyx target/release/notifyx --pin --yardstick
set -eu

[ $# -ge 1 ] || { echo "usage: $0 NOTIFYX-BENCH [argument of fanout]…" >&2; exit 2; }
module=/usr/lib/nginx/modules/ngx_nchan_module.so
if ! command -v nginx >/dev/null || [ ! -f "$module" ]; then
    echo "$0: nginx with Nchan is missing: apt-get install nginx-light libnginx-mod-nchan" >&2
    exit 1
fi
bench=$1
shift
port=${NCHAN_PORT:-4080}
folder=$(mktemp -d)
stop() {
    [ -f "$folder/pid" ] && kill "$(cat "$folder/pid")"
    # nginx removes the file when it has ended.
    for _ in $(seq 50); do [ -f "$folder/pid" ] || break; sleep 0.1; done
    rm -rf "$folder"
}
trap stop EXIT
trap 'exit 130' INT TERM

# As the reference measured it: no access log, messages in memory, kept publishers never closed.
cat > "$folder/nginx.conf" <<CONF
load_module $module;
pid $folder/pid;
error_log $folder/error.log warn;
worker_processes 1;
worker_rlimit_nofile $(ulimit -Hn);
events { worker_connections $(ulimit -Hn); }
http {
    access_log off;
    client_body_temp_path $folder/body;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    tcp_nodelay on;
    nchan_shared_memory_size 128M;
    server {
        listen 127.0.0.1:$port backlog=4096;
        location = /pub/fanout {
            nchan_publisher;
            nchan_channel_id fanout;
            nchan_message_buffer_length 256;
            nchan_message_timeout 60s;
        }
        location = /sub/fanout {
            nchan_subscriber websocket;
            nchan_channel_id fanout;
            nchan_subscriber_first_message newest;
        }
    }
}
CONF
taskset -c 0 nginx -e "$folder/error.log" -c "$folder/nginx.conf" -p "$folder"
worker=
for _ in $(seq 50); do
    [ -f "$folder/pid" ] && worker=$(pgrep -P "$(cat "$folder/pid")" -f 'nginx: worker') && break
    sleep 0.1
done
[ -n "$worker" ] || { cat "$folder/error.log" >&2; exit 1; }
"$bench" fanout --nchan "127.0.0.1:$port" --nchan-pid "$worker" "$@"
