"""Sales of the articles in a table."""
import boto3
import pandas
import sqlalchemy
from flask import Flask, jsonify

app = Flask(__name__)
engine = sqlalchemy.create_engine("sqlite://")


@app.route("/sales/<bucket>/<key>")
def sales(bucket, key):
    body = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"]
    table = pandas.read_csv(body)
    table.to_sql("sales", engine, if_exists="replace")
    return jsonify(table.groupby("article")["price"].sum().to_dict())
