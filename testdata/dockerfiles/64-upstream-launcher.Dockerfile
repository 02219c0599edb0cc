FROM python:3.11-slim
RUN pip install opentelemetry-distro && opentelemetry-bootstrap -a install
CMD ["opentelemetry-instrument", "python", "app.py"]
