"""How log records look: one line each, whatever the message or the traceback holds.

Rule: a line feed in a message cannot forge a second record.
"""

import logging


class LineFormatter(logging.Formatter):
    """`2026-01-31 12:00:00,000 WARNING logger: message`, in local time; a traceback follows with its lines joined."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\r", "\\r").replace("\n", "\\n")


class WithoutTraceback(logging.Filter):
    """For what strangers can cause at will: the line that says what happened, and nothing of how."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = record.exc_text = None
        return True
