FROM python:3.11-slim
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN pip install flask | tee /tmp/log
CMD python app.py "$HOSTNAME"
