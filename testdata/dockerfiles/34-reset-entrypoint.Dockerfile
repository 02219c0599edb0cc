FROM registry.example.com/base/entry:1
ENTRYPOINT []
CMD ["python", "app.py"]
