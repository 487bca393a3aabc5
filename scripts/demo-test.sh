#!/usr/bin/env bash
# usage: demo-test.sh
#
# Proves that `make demo` works on what a clone holds, with an empty module
# cache: with the local engine and without one; and that it leaves nothing
# behind, not even when it is interrupted.
set -euo pipefail
set -m # a job is a process group of its own, as on a terminal, so that it can get Ctrl-C
cd "$(dirname "$0")/.."

plugin=otelmetrics-demo:dev
work=$(mktemp -d)
job=''

cleanup() {
  status=$?
  if [ -n "$job" ]; then
    kill -TERM -- "-$job" 2>/dev/null || true
    wait "$job" 2>/dev/null || true
  fi
  rm -rf "$work"
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

fail() {
  echo "demo-test.sh: $*; this is what it wrote:" >&2
  cat "$work/out" >&2
  exit 1
}

# demo [VARIABLE=VALUE...] starts the demo in the copy; nobody types at it, and
# its output is no terminal.
demo() {
  env -C "$work/copy" "GOMODCACHE=$work/modules" GOFLAGS=-modcacherw DEMO_SECONDS=5 "$@" make demo </dev/null >"$work/out" 2>&1 &
  job=$!
}

# ended waits for the demo and sets status to its exit code.
ended() {
  status=0
  wait "$job" || status=$?
  job=''
}

await_output() {
  local deadline=$((SECONDS + 300))
  until grep -qs "$1" "$work/out"; do
    kill -0 "$job" 2>/dev/null || fail "it ended without '$1'"
    if [ "$SECONDS" -ge "$deadline" ]; then fail "no '$1' after 300 s"; fi
    sleep 0.1
  done
}

shows() { grep -q "$1" "$work/out" || fail "it should show '$1'"; }

nothing_left() {
  local exe
  if [ -n "$engine" ] && docker plugin inspect "$plugin" >/dev/null 2>&1; then fail "it left the plugin $plugin"; fi
  for exe in /proc/[0-9]*/exe; do
    if [[ $(readlink "$exe" || true) == "$work"/* ]]; then fail "it left the process $exe, $(readlink "$exe")"; fi
  done
}

mkdir "$work/copy"
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
  if [ -e "$file" ]; then printf '%s\0' "$file"; fi # not one that is deleted in the work tree alone
done | tar -c --null --files-from=- | tar -x -C "$work/copy"

engine=yes
if ! answer=$(docker plugin ls 2>&1); then
  engine=''
  if [ "${CI:-}" = true ]; then
    echo "demo-test.sh: no Docker Engine: $answer" >&2
    exit 1
  fi
  echo "demo-test.sh: only what needs no Docker Engine: $answer" >&2
fi

echo '--- without an engine'
demo DOCKER_HOST=unix:///nonexistent/docker.sock
ended
[ "$status" -eq 0 ] || fail "it should exit with 0, not $status"
shows 'no Docker Engine to use: .*nonexistent'
shows 'request 1: [0-9]* metrics'
shows '^  engine_daemon_engine_info .*{.*version='
shows '^  up  *gauge .* 1$'
shows '^received [0-9]* requests with [0-9]* points'
nothing_left

if [ -n "$engine" ]; then
  echo '--- in the engine'
  demo
  ended
  [ "$status" -eq 0 ] || fail "it should exit with 0, not $status"
  shows 'request 2: [0-9]* metrics'
  shows '^  engine_daemon_engine_info .*{.*version='
  shows '^  up  *gauge .* 1$'
  shows '^received [0-9]* requests with [0-9]* points'
  shows 'nothing is left'
  nothing_left

  for moment in 'creating the plugin' 'request 1:'; do
    echo "--- interrupted after '$moment'"
    demo DEMO_SECONDS=600
    await_output "$moment"
    kill -INT -- "-$job"
    ended
    [ "$status" -ne 0 ] || fail 'it should not exit with 0'
    shows 'nothing is left'
    nothing_left
  done
fi
echo '--- passed'
