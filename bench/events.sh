#!/bin/sh
# Events at their time: SQLite and a PostgreSQL server of its own, without and with a million events that wait, beside graphile-worker and
# pg-boss where npm is at hand, in one run of some ten minutes. Arguments are added to those of `notifyx-bench events`.
#
#   bench/events.sh
#   bench/events.sh --data /mnt/disk --json
set -eu

cd "$(dirname "$0")/.."
cargo build --release -p notifyx -p notifyx-bench >&2
if command -v npm >/dev/null; then
    # The lock file also names the version of Node that runs them.
    (cd bench/peers && npm ci --no-audit --no-fund >&2) || echo "$0: npm ci failed: graphile-worker and pg-boss are skipped" >&2
else
    echo "$0: npm is missing (https://nodejs.org): graphile-worker and pg-boss are skipped" >&2
fi
programs=${CARGO_TARGET_DIR:-target}/release
exec "$programs/notifyx-bench" events --notifyx "$programs/notifyx" --postgres --peers bench/peers "$@"
