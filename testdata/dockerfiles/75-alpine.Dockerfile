FROM python:3.11-alpine
CMD ["python3", "app.py"]
