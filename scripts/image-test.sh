#!/usr/bin/env bash
# usage: image-test.sh
#
# Proves without a registry that the Dockerfile works: the Go image is made of
# this machine's own toolchain, the modules are vendored into the build context,
# and the build has no network. The result must be the one binary, must run, and
# must be all that a plugin needs to be enabled.
set -euo pipefail
cd "$(dirname "$0")/.."

name=otelmetrics-image-test
version=v0.0.0-imagetest
work=$(mktemp -d)
container=''

cleanup() {
  status=$?
  set +e
  trap '' INT TERM HUP
  docker plugin rm --force "$name:dev" >/dev/null 2>&1
  if [ -n "$container" ]; then docker rm --force "$container" >/dev/null; fi
  for image in rootfs build go; do docker rmi --force "$name:$image" >/dev/null 2>&1; done
  rm -rf "$work"
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

fail() {
  echo "image-test.sh: $*" >&2
  exit 1
}

if ! answer=$(docker version --format '{{.Server.Version}}' 2>&1); then
  if [ "${CI:-}" = true ]; then fail "no Docker Engine: $answer"; fi
  echo "image-test.sh: skipped, there is no Docker Engine: $answer" >&2
  exit 0
fi

echo '--- a Go image of the toolchain on this machine'
mkdir -p "$work/image/usr/local/go" "$work/image/tmp"
(cd "$(go env GOROOT)" && cp -RL VERSION go.env bin lib pkg src "$work/image/usr/local/go/")
rm -r "$work/image/usr/local/go/src/cmd" # the tools' own source
tar -C "$work/image" -c . | docker import --change 'ENV PATH=/usr/local/go/bin' --change 'ENV GOTOOLCHAIN=local' - "$name:go" >/dev/null

echo '--- a build context with the modules in it'
mkdir "$work/context"
cp -R Dockerfile .dockerignore go.mod go.sum cmd internal pkg "$work/context/"
(cd "$work/context" && go mod vendor)

echo '--- docker build'
build=(docker build --network none --build-arg "GO_IMAGE=$name:go" --build-arg "VERSION=$version")
"${build[@]}" --target build --tag "$name:build" "$work/context"
"${build[@]}" --tag "$name:rootfs" "$work/context"

echo '--- what came out'
container=$(docker create "$name:rootfs")
mkdir -p "$work/plugin/rootfs"
docker cp "$container:/" - | tar -C "$work/plugin/rootfs" -x
# The engine puts files of its own into every container.
files=$(cd "$work/plugin/rootfs" && find . -type f ! -path './dev/*' ! -path './etc/*' ! -name .dockerenv)
[ "$files" = ./otelmetricsplugin ] || fail "the image should hold one file, /otelmetricsplugin; it holds: $files"
rm -rf "$work/plugin/rootfs/"{dev,etc,proc,sys,.dockerenv}
said=$(docker run --rm --network none "$name:rootfs" version)
echo "$said"
[[ $said == *"$version"* ]] || fail "the program should say its version, $version"

echo '--- as a plugin'
cp config.json "$work/plugin/"
docker plugin rm --force "$name:dev" >/dev/null 2>&1 || true # of a run that was killed
docker plugin create "$name:dev" "$work/plugin"
docker plugin enable "$name:dev"
[ "$(docker plugin inspect --format '{{.Enabled}}' "$name:dev")" = true ] || fail 'the plugin should be enabled'
echo '--- passed'
