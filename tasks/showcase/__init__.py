"""`celery -A tasks runs demo PATTERN`: one pattern of the catalogue, before your eyes."""
