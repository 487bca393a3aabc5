#!/usr/bin/env bash
# usage: plugin.sh NAME DIRECTORY
#
# Creates the managed plugin NAME in the local engine from a directory that
# holds config.json and rootfs. A disabled plugin of that name is replaced, an
# enabled one is somebody's and stays.
set -euo pipefail

name=$1
directory=$2

if ! enabled=$(docker plugin inspect --format '{{.Enabled}}' "$name" 2>&1); then
  case $enabled in
    *"No such plugin"* | *"not found"*) ;;
    *)
      echo "plugin.sh: asking the engine for $name: $enabled" >&2
      exit 1
      ;;
  esac
elif [ "$enabled" = true ]; then
  echo "plugin.sh: $name is enabled; to replace it (its settings and spool go with it): docker plugin disable $name" >&2
  exit 1
else
  docker plugin rm "$name" >/dev/null
fi

docker plugin create "$name" "$directory"
