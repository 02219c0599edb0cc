FROM python:3.11-slim AS python
ENV OTEL_TRACES_EXPORTER=console

FROM python
CMD ["python", "app.py"]
