FROM --platform=linux/amd64 python:3.11-slim
CMD ["python", "app.py"]
