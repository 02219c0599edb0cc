FROM python:3.11-slim
CMD python -c "import sys; print('$HOME', \"x\", '\\n')" && echo done
