#!/usr/bin/env bash
# usage: demo-test.sh
#
# Proves that `make demo` works in a fresh clone, with an empty module
# cache: with the local engine and without one; and that it leaves nothing
# behind, not even when it is interrupted.
set -euo pipefail
cd "$(dirname "$0")/.."

plugin=otelmetrics-demo:dev
work=$(mktemp -d)
job=''

cleanup() {
  status=$?
  set +e
  if [ -n "$job" ]; then
    kill -TERM -- "-$job" 2>/dev/null
    wait "$job" 2>/dev/null
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
# its output is not a terminal.
demo() {
  set -m # it gets a process group of its own, as on a terminal, so that it can get Ctrl-C
  # An interrupt that was ignored where this script was started is not here.
  env --default-signal=INT -C "$work/copy" "GOMODCACHE=$work/modules" GOFLAGS=-modcacherw DEMO_SECONDS=5 "$@" make demo </dev/null >"$work/out" 2>&1 &
  job=$!
  set +m
}

# ended waits for the demo and sets status to its exit code.
ended() {
  status=0
  wait "$job" || status=$?
  job=''
}

# await COMMAND... runs the command until it succeeds.
await() {
  local deadline=$((SECONDS + 300))
  until "$@" >/dev/null 2>&1; do
    kill -0 "$job" 2>/dev/null || fail "it ended too soon for: $*"
    if [ "$SECONDS" -ge "$deadline" ]; then fail "300 s were not enough for: $*"; fi
    sleep 0.1
  done
}

shows() { grep -q "$1" "$work/out" || fail "it should show '$1'"; }

nothing_left() {
  local exe environ endpoint
  endpoint=$(sed -n 's/.*exporting to \(http[^ ]*\) .*/\1/p' "$work/out" | head -n 1)
  for environ in /proc/[0-9]*/environ; do
    if [ -n "$endpoint" ] && grep -qzx "OTLP_ENDPOINT=$endpoint" "$environ" 2>/dev/null; then fail "it left the plugin's process, ${environ%/environ}"; fi
  done
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
shows '^  engine_daemon_engine_info .* 1 {architecture='
shows '^  up  *gauge .* 1$'
shows '^received [0-9]* requests with [0-9]* points'
nothing_left

if [ -n "$engine" ]; then
  echo '--- in the engine'
  demo
  ended
  [ "$status" -eq 0 ] || fail "it should exit with 0, not $status"
  shows 'request 2: [0-9]* metrics'
  shows '^  engine_daemon_engine_info .* 1 {architecture='
  shows '^  up  *gauge .* 1$'
  shows '^received [0-9]* requests with [0-9]* points'
  shows 'nothing is left'
  nothing_left

  interrupted() {
    echo "--- interrupted at: $*"
    demo DEMO_SECONDS=600
    await "$@"
    kill -INT -- "-$job"
    ended
    [ "$status" -ne 0 ] || fail 'it should not exit with 0'
    nothing_left
  }
  interrupted grep 'creating the plugin' "$work/out"
  interrupted docker plugin inspect "$plugin"
  interrupted grep 'request 1:' "$work/out"

  echo '--- failing half way'
  sed -i 's#"/otelmetricsplugin"#"/absent"#' "$work/copy/config.json"
  demo
  ended
  [ "$status" -ne 0 ] || fail 'it should not exit with 0'
  shows 'absent'
  nothing_left
fi
echo '--- passed'
