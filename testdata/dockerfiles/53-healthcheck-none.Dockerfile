FROM python:3.11-slim
HEALTHCHECK NONE
CMD ["python", "app.py"]
