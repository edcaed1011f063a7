"""Who changed what: one entry per deliberate change, from whichever door it came in.

Rule: entries are added in the transaction of the change they describe. They hold no prompt and no secret.
"""

from typing import Any

from controlplane.models import AuditEntry

COMMAND_LINE = "command line"  # the actor when a shell on this machine did it
SYSTEM = "narrowgauge"  # the actor when nobody asked


def record(actor: str, action: str, target: str, **detail: Any) -> AuditEntry:
    """Add an entry. `detail` must be JSON; lengths beyond the columns are cut."""
    return AuditEntry.objects.create(actor=actor[:150], action=action[:40], target=target[:200], detail=detail)
