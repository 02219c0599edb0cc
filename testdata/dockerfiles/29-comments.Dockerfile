# The shop.
#
# Maintained by nobody.

FROM python:3.11-slim   
# indented instruction follows
  WORKDIR /app

RUN pip install \
# inside of a continuation
    flask \

    gunicorn

CMD ["gunicorn", "app:app"]

# vim: set ft=dockerfile:
