FROM debian:12-slim AS build
RUN apt-get update && apt-get install --yes python3-venv && python3 -m venv /venv

FROM gcr.io/distroless/python3-debian12
COPY --from=build /venv /venv
ENTRYPOINT ["/venv/bin/python3", "/app/main.py"]
