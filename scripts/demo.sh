#!/usr/bin/env bash
# usage: demo.sh, after `make plugin-dir` and the build of bin/servepage: `make demo`
#
# Shows for about 20 s what the plugin sends: `receive` stands in for a
# Collector, and the plugin runs in the local Docker Engine, every 2 s. Without
# an engine the same pipeline runs on a recorded page. It removes
# everything that it created, also when it is interrupted.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${DEMO_SECONDS:-20}
interval=2s
plugin=otelmetrics-demo:dev
page=testdata/pages/297-active.pb

say() { printf '\ndemo: %s\n' "$*"; }

work=$(mktemp -d)
pids=''        # of the programs started here, the latest first
made_plugin='' # whether $plugin is ours to remove
enabling=''    # the enable under way, which the engine must not be disturbed in
removed=''

remove_plugin() {
  local answer
  for _ in {1..40}; do
    if answer=$(docker plugin rm --force "$plugin" 2>&1) || [[ $answer == *'not found'* ]]; then return 0; fi
    sleep 0.25
  done
  say "$answer; remove the plugin yourself: docker plugin rm --force $plugin" >&2
  return 1
}

cleanup() {
  status=$?
  trap '' INT TERM HUP # the rest is short, and a second Ctrl-C must not cut it
  trap - EXIT
  set +e # nothing that fails here may keep the rest from being removed
  if [ -n "$made_plugin" ]; then
    # An engine that is asked to remove a plugin which it is enabling forgets the
    # plugin and leaves its process running: the enable comes to its end first.
    if [ -n "$enabling" ]; then wait "$enabling"; fi
    say "removing $plugin"
    set -m # docker reacts to Ctrl-C even if it is ignored
    remove_plugin &
    if wait $!; then removed=yes; fi
    set +m
  fi
  for pid in $pids; do
    kill -TERM "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
  done
  if [ "$status" -eq 1 ] && [ -s "$work/log" ]; then
    say 'this is what the programs logged:'
    cat "$work/log"
  fi
  rm -rf "$work"
  if [ -n "$removed" ]; then say "removed $plugin; nothing is left"; fi
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# await SECONDS WHAT COMMAND... runs the command until it succeeds.
await() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      say "$what: timed out" >&2
      return 1
    fi
    sleep 0.1
  done
}

# why_no_engine says what keeps the plugin from running here, or nothing. A
# plugin reaches what listens on its engine's machine, so that must be this one.
why_no_engine() {
  local host answer
  if ! command -v docker >/dev/null; then
    echo 'there is no docker command'
  elif ! answer=$(docker plugin ls --quiet 2>&1); then
    tail -n 1 <<<"$answer"
  elif host=$(docker context inspect --format '{{.Endpoints.docker.Host}}') && [[ $host != unix://* ]]; then
    echo "the engine is on another machine, $host"
  elif answer=$(docker info --format '{{.OperatingSystem}} {{.SecurityOptions}}') && [[ $answer == *'Docker Desktop'* || $answer == *rootless* ]]; then
    echo "the engine has a network of its own ($answer)"
  fi
}

no_engine=$(why_no_engine)

# Settings of whoever runs this are not the demo's.
clean=(env -i "PATH=$PATH" LOG_FORMAT=text)

# What is started runs in process groups of its own, so that on Ctrl-C the
# receiver is still there for the last export.
set -m
"${clean[@]}" bin/otelmetricsplugin receive --listen 127.0.0.1:0 2>"$work/log" &
set +m
receiver=$!
pids=$receiver
await 10 'the receiver to listen' grep -qs address= "$work/log"
endpoint=http://$(sed -n 's/.*address=\([^ ]*\).*/\1/p' "$work/log" | head -n 1)

if [ -z "$no_engine" ]; then
  say "creating the plugin $plugin, exporting to $endpoint every $interval"
  docker plugin rm --force "$plugin" >/dev/null 2>&1 || true # of a demo that was killed
  made_plugin=yes
  docker plugin create "$plugin" build/plugin >/dev/null
  docker plugin set "$plugin" "OTLP_ENDPOINT=$endpoint" "OTEL_METRIC_EXPORT_INTERVAL=$interval"
  set -m
  docker plugin enable "$plugin" >/dev/null &
  set +m
  enabling=$!
  wait "$enabling"
  enabling=''
  say "this is the engine's own page, as a Collector would get it"
else
  say "no Docker Engine to use: $no_engine"
  say "the same pipeline runs on a recorded page instead: $page"
  set -m
  "${clean[@]}" bin/servepage --listen 127.0.0.1:0 "$page" >"$work/url" 2>>"$work/log" &
  set +m
  pids="$! $pids"
  await 10 'the recorded page to be served' test -s "$work/url"
  set -m
  "${clean[@]}" "OTLP_ENDPOINT=$endpoint" "OTEL_METRIC_EXPORT_INTERVAL=$interval" \
    "SCRAPE_URL=$(cat "$work/url")" SPOOL_DIR=none \
    bin/otelmetricsplugin run >>"$work/log" 2>&1 &
  set +m
  pids="$! $pids"
fi

await 15 'the first metrics to arrive' grep -q 'first request arrived' "$work/log"
sleep "$seconds" &
pids="$! $pids"
wait $! # unlike sleep itself, wait ends at once on a signal
kill -0 "$receiver" # it must have lived until here
