# escape=`
FROM python:3.11-slim
ENV WINDOWS_PATH="C:\shop" `
    B=2
RUN pip install `
    flask
CMD [ "python", `
      "app.py" ]
