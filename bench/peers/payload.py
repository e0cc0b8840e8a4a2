"""What every job carries."""

PAYLOAD = {"data": "x" * 89}
"""100 bytes of JSON without spaces."""
