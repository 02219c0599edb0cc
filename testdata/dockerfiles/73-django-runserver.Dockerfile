FROM python:3.11-slim
ENV PYTHONDONTWRITEBYTECODE=1
WORKDIR /code
COPY . /code/
EXPOSE 8000
CMD ["python", "manage.py", "runserver", "0.0.0.0:8000"]
