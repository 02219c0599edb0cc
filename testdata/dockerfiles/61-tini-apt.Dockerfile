FROM python:3.11-slim
RUN apt-get update && apt-get install -y tini
ENTRYPOINT ["/usr/bin/tini", "-g", "--"]
CMD ["gunicorn", "app:app"]
