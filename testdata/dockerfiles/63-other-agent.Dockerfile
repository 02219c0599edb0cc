FROM python:3.11-slim
RUN pip install ddtrace
CMD ["ddtrace-run", "python", "app.py"]
