FROM python:3.11-slim
WORKDIR /code
COPY . .
RUN pip install "fastapi[standard]"
CMD ["fastapi", "run", "app/main.py", "--port", "80", "--proxy-headers"]
