from django.db import connection


def lamps():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 11")
        (count,) = cursor.fetchone()
    return count
