FROM python:3.11-slim
CMD ["app.py"]
ENTRYPOINT ["python"]
