#!/bin/sh
# The curve of publishes through two-phase commit: SQLite and a PostgreSQL server of its own, 1 to 256 publishers, beside the
# yardsticks, in one run of less than five minutes. Arguments are added to those of `notifyx-bench publish`.
#
#   bench/publish.sh
#   bench/publish.sh --data /mnt/disk --json
set -eu

cd "$(dirname "$0")/.."
cargo build --release -p notifyx -p notifyx-bench >&2
programs=${CARGO_TARGET_DIR:-target}/release
exec "$programs/notifyx-bench" publish --notifyx "$programs/notifyx" --postgres --yardstick "$@"
