FROM python:3.11-slim
ENTRYPOINT exec gunicorn --bind 0.0.0.0:$PORT app:app
