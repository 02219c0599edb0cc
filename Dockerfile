# An image of imgwrap with the bundles of all releases inside: it needs a
# registry and no package index.
#
#   docker build -t imgwrap .
#   docker run --rm -v ~/.docker/config.json:/config.json:ro -e DOCKER_CONFIG=/ imgwrap registry.example.com/app:1.0
#
# And that of the BuildKit frontend, see docs/frontend.md. LAYERS is the repository
# that it takes layers from where a build names none:
#
#   docker build --target frontend --build-arg LAYERS=registry.example.com/otel -t registry.example.com/imgwrap .
ARG GO_IMAGE=docker.io/library/golang:1.26
ARG BASE_IMAGE=gcr.io/distroless/static:nonroot

FROM ${GO_IMAGE} AS source
WORKDIR /src
COPY go.mod go.sum ./
COPY cmd cmd
COPY image image
COPY layer layer

FROM source AS build-frontend
ARG VERSION=
ARG LAYERS=
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION} -X main.layers=${LAYERS}" -o /out/imgwrap-frontend ./cmd/imgwrap-frontend

FROM scratch AS frontend
COPY --from=build-frontend /out/imgwrap-frontend /imgwrap-frontend
LABEL moby.buildkit.frontend.network.none="true"
LABEL moby.buildkit.frontend.caps="moby.buildkit.frontend.inputs,moby.buildkit.frontend.contexts,moby.buildkit.frontend.subrequests"
ENTRYPOINT ["/imgwrap-frontend"]

FROM source AS build
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
