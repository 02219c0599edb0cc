FROM python:3.11-slim
MAINTAINER somebody <somebody@example.com>
VOLUME ["/data"]
LABEL a=b "c d"="e f"
CMD ["python", "app.py"]
