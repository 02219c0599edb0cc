FROM python:3.11-slim AS a
SHELL ["/bin/bash", "-c"]
ENV A=a
FROM a AS b
ENTRYPOINT python -m shop
FROM b AS c
CMD ["ignored by the shell"]
FROM c AS d
USER nobody
