FROM python:3.11-slim
ARG UID=1000
ENV HOME=/home/app
USER $UID:$UID
WORKDIR $HOME
WORKDIR src
CMD ["python", "app.py"]
