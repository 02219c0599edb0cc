# An image of imgwrap with the bundles of all releases inside: it needs a
# registry and no package index.
#
#   docker build -t imgwrap .
#   docker run --rm -v ~/.docker/config.json:/config.json:ro -e DOCKER_CONFIG=/ imgwrap registry.example.com/app:1.0
ARG GO_IMAGE=docker.io/library/golang:1.26
ARG BASE_IMAGE=gcr.io/distroless/static:nonroot

FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
COPY cmd cmd
COPY image image
COPY layer layer
ARG VERSION=
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-X main.version=${VERSION}" -o /out/imgwrap ./cmd/imgwrap
ARG PIP_INDEX_URL=
RUN /out/imgwrap --cache-dir /out/cache layer build

FROM ${BASE_IMAGE}
COPY --from=build /out/imgwrap /usr/local/bin/imgwrap
COPY --from=build --chown=65532:65532 /out/cache/layers /var/cache/imgwrap/layers
ENV IMGWRAP_CACHE_DIR=/var/cache/imgwrap
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/imgwrap"]
