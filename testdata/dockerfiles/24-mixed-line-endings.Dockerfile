FROM python:3.11-slim
ENV A=1
ENV B=2
CMD ["python", "-m", "shop"]

