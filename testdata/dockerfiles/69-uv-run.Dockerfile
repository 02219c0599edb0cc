FROM ghcr.io/astral-sh/uv:python3.11-bookworm-slim
ADD . /app
WORKDIR /app
RUN uv sync --locked
CMD ["uv", "run", "main.py"]
