FROM python:3.11-slim
ENTRYPOINT ["python", "-c", "print(\"a \\\"b\\\" $HOME 'c' \u00e9 <&>\")"]
