FROM python:3.11-slim
CMD ["python", "one.py"]
RUN pip install flask
CMD ["python", "two.py"]
