FROM python:3.11-slim
ONBUILD ENTRYPOINT ["python"]
ONBUILD RUN pip install flask
CMD ["python", "-m", "http.server"]
