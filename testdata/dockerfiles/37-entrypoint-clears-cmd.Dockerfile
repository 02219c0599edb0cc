FROM registry.example.com/base/entry:1
ENTRYPOINT ["python", "/app/main.py"]
