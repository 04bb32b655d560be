#!/usr/bin/env bash
# Runs one step of `make test`: step.sh NAME COMMAND… Green, it is one line and what the test runners close with; red, it
# shows all that the command said. VERBOSE=1 shows everything as it comes.
set -u
name=$1
shift
if [ -n "${VERBOSE:-}" ]; then
    echo "== $name"
    exec "$@"
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
began=$SECONDS
"$@" >"$log" 2>&1
code=$?
if [ $code -ne 0 ]; then
    echo "== $name: failed (exit code $code): $*"
    cat "$log"
    exit $code
fi
printf 'ok  %-28s %4d s\n' "$name" $((SECONDS - began))
# What cargo test and node --test close with, added up.
awk '
    /^test result:/ { passed += $4; failed += $6; ignored += $8; suites++ }
    /^(#|ℹ) (tests|pass|fail) / { node = node " " $2 " " $3 }
    END {
        if (suites) printf "    test result: ok. %d passed; %d failed; %d ignored (%d suites)\n", passed, failed, ignored, suites
        if (node) printf "    node:%s\n", node
    }
' "$log"
