ARG BASE
FROM ${BASE}
CMD ["python", "-m", "shop"]
