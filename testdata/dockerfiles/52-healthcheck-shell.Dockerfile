FROM python:3.11-slim
HEALTHCHECK CMD curl -f http://localhost/ || exit 1
CMD ["python", "app.py"]
