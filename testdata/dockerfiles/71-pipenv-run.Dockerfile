FROM python:3.11-slim
RUN pip install pipenv
WORKDIR /app
COPY . .
RUN pipenv sync
ENTRYPOINT ["pipenv", "run"]
CMD ["python", "app.py"]
