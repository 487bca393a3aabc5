# The managed plugin's root file system, from source. With BuildKit:
#
#   mkdir -p build/plugin && cp config.json build/plugin/
#   docker build --output build/plugin/rootfs .
#   docker plugin create otelmetrics:dev build/plugin
#
# and without it, in place of the second line:
#
#   docker build --tag otelmetrics-rootfs . && id=$(docker create otelmetrics-rootfs)
#   mkdir -p build/plugin/rootfs && docker cp "$id:/otelmetricsplugin" build/plugin/rootfs/
#
# The builder needs only Go, not even a shell. Modules come from the
# module proxy, or from a vendor directory (go mod vendor) where there is one.

ARG GO_IMAGE=golang:1.26
FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY . .
ARG VERSION=dev
ARG COMMIT=unknown
ENV CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false -tags=grpcnotrace,nethttpomithttp2 '-ldflags=-s -w -funcalign=16 -X main.version=${VERSION} -X main.commit=${COMMIT}'"
RUN ["go", "build", "-o", "/rootfs/", "./cmd/otelmetricsplugin"]

# TLS roots are compiled in, and the engine makes every directory that it mounts
# something on: the root file system is one file.
FROM scratch
COPY --from=build /rootfs/ /
ENTRYPOINT ["/otelmetricsplugin"]
