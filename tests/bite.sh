#!/usr/bin/env bash
# Do the tests bite? Breaks one rule of two-phase commit, or of scheduled notifications, at a time, in a copy of what is committed, and runs the tests that must
# notice. `make bite`, or `tests/bite.sh NAME…` for some of tests/bite/*.patch. A patch says in its head which rule it breaks and
# which tests have to fail: each of them passes on the whole rules, compiles on the broken ones, and fails.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
tree=$root/target/bite
logs=$root/target/bite-logs
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}

rm -rf "$tree" "$logs"
mkdir -p "$tree" "$logs"
git archive HEAD | tar -x -C "$tree"
# What the sources are of: cargo looks at times.
find "$tree" -type f -exec touch {} +

if [ $# -gt 0 ]; then
    patches=()
    for name in "$@"; do patches+=("$root/tests/bite/$name.patch"); done
else
    patches=("$root"/tests/bite/*.patch)
fi
heads() { sed -n "s/^$1: //p;/^diff /q" "$2"; }
# In words, without a shell: a head is text, not a program.
run() { (cd "$tree" && read -ra words <<<"$1" && shift && "${words[@]}" "$@"); }

bad=0
while IFS= read -r command; do
    if run "$command" >"$logs/whole.log" 2>&1 </dev/null; then
        echo "ok       with the whole rules: $command"
    else
        echo "BROKEN   with the whole rules: $command"
        tail -n 40 "$logs/whole.log"
        exit 1
    fi
done < <(for patch in "${patches[@]}"; do heads Test "$patch"; done | sort -u)

for patch in "${patches[@]}"; do
    name=$(basename "$patch" .patch)
    log=$logs/$name.log
    echo "$name: $(heads Rule "$patch")"
    (cd "$tree" && patch -sp1 --no-backup-if-mismatch <"$patch")
    while IFS= read -r command; do
        if ! run "${command/cargo test/cargo test --no-run}" >"$log" 2>&1 </dev/null; then
            echo "  BROKEN   does not compile: $command"
            tail -n 20 "$log"
            bad=1
        elif run "${command/cargo test/cargo test --no-fail-fast}" >"$log" 2>&1 </dev/null; then
            echo "  MISSED   $command"
            bad=1
        else
            echo "  noticed  $command"
            sed -n 's/^test \(.*\) \.\.\. FAILED.*/             \1/p' "$log" | sort -u
        fi
    done < <(heads Test "$patch")
    (cd "$tree" && patch -sRp1 --no-backup-if-mismatch <"$patch")
done
exit $bad
