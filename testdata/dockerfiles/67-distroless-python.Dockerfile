FROM gcr.io/distroless/python3-debian12
COPY . /app
WORKDIR /app
CMD ["hello.py", "/etc"]
