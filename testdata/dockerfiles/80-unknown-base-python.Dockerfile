FROM registry.example.com/private/base:1
ENV OTEL_PROPAGATORS=b3
ENTRYPOINT ["python3.9", "-m", "shop"]
