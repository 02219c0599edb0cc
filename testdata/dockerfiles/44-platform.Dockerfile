FROM --platform=$BUILDPLATFORM python:3.11-slim AS build
RUN pip install --target /packages flask

FROM --platform=$TARGETPLATFORM python:3.11-slim
COPY --from=build /packages /packages
ENV PYTHONPATH=/packages
CMD ["python", "-m", "flask", "run"]
