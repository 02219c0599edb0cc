FROM python:3.11-slim AS build
RUN pip install pyinstaller

FROM scratch
COPY --from=build / /
ENV PATH=/usr/local/bin:/usr/bin:/bin
ENTRYPOINT ["/usr/local/bin/python3.11", "/app.py"]
