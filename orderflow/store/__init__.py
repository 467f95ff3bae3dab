"""The store: SQLite files below ``var/``. `sqlite` is the only importer of sqlite3.

``orders.db`` is a projection of the topic with one writer (`writer`), read by everyone else (`reader`).
"""
