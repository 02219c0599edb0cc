# syntax=docker/dockerfile:1-labs
FROM python:3.11-slim
PROVIDE metrics on 9000
RUN --someday=true echo "a flag from the future"
CMD ["python", "app.py"]
