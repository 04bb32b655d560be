#!/usr/bin/env bash
# Installs what the tests need and the machine lacks: rustfmt and clippy, PostgreSQL's server (the tests start their own
# from it), packages of the JavaScript clients; looks whether there is room to build. Does nothing where all is there.
set -eu
cd "$(dirname "$0")/.."

# A debug build of everything and the tests' own databases; a full disk would fail whichever test comes next.
needed_mb=5000
[ ! -d target/debug ] || needed_mb=1000
free_mb=$(df -Pm . | awk 'NR == 2 { print $4 }')
if [ "$free_mb" -lt "$needed_mb" ]; then
    echo "the tests need $needed_mb MB of disk in $PWD, and $free_mb MB are free" >&2
    exit 1
fi

cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
cargo clippy --version >/dev/null 2>&1 || rustup component add clippy

has_postgres() {
    command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1
}

if ! has_postgres && [ -z "${NOTIFYX_TEST_POSTGRES:-}" ]; then
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    if ! command -v apt-get >/dev/null; then
        echo "the tests need PostgreSQL's server (initdb on the PATH), or NOTIFYX_TEST_POSTGRES=postgres://… of one" >&2
        exit 1
    fi
    # Debian would start a server of its own; the tests want only the programs.
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        "${as_root[@]}" mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' | "${as_root[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
    fi
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends postgresql
    has_postgres
fi

# Again only when the lock file has changed.
if [ -f tests/js/package-lock.json ] && ! cmp -s tests/js/package-lock.json tests/js/node_modules/.installed; then
    npm --prefix tests/js ci --no-audit --no-fund
    cp tests/js/package-lock.json tests/js/node_modules/.installed
fi
