FROM python:3.11-slim AS base
WORKDIR /app

FROM base AS Web
COPY web.py .
CMD ["python", "web.py"]
# Everything about the web is above.

# The worker.
FROM base AS worker
COPY worker.py .
CMD ["python", "worker.py"]
