from python:3.11-slim as app
workdir /app
copy . .
entrypoint ["python"]
cmd ["app.py"]
