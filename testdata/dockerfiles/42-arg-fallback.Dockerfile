ARG BASE
FROM ${BASE:-python:3.11-slim}
CMD ["python", "-m", "shop"]
