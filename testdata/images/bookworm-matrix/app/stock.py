"""The database that the web applications ask."""
import sqlite3


def lamps():
    connection = sqlite3.connect(":memory:")
    try:
        (count,) = connection.cursor().execute("SELECT 11").fetchone()
    finally:
        connection.close()
    return count
