FROM python:3.11-slim AS template
ONBUILD RUN <<EOF
echo in the child
EOF

FROM template
CMD ["python", "app.py"]
