FROM registry.example.com/private/base:1
COPY . /app
CMD ["serve"]
