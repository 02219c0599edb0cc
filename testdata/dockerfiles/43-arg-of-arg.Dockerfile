ARG VERSION=3.11
ARG BASE=python:${VERSION}-slim
FROM $BASE AS shop
CMD ["python", "-m", "shop"]
