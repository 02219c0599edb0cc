FROM python:3.11-slim
ENV OLD style value with spaces
ENV A="a b" B=a\ b C='$A' D="$A and \$A" E=${MISSING:-fallback}
ENV OTEL_RESOURCE_ATTRIBUTES="team=shop,cost=1%2C5"
CMD ["python", "app.py"]
