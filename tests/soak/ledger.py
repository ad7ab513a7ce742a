"""What a killed writer sent and what it was told, against what is there: the judge. It shares no code with memlab.

acknowledged ⊆ present ⊆ sent; a member is there whole or not at all; so is a group that was one transaction
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field


@dataclass
class Member:
    """Rows that were sent together, by seq, with their text.

    Attributes:
        acknowledged: its answer came back without an error.
        delete_sent, delete_acknowledged: of a later request to delete exactly these rows.
    """

    rows: dict[int, str]
    acknowledged: bool = False
    delete_sent: bool = False
    delete_acknowledged: bool = False


@dataclass
class Ledger:
    """Everything that the writer said, round after round.

    Attributes:
        groups: ids of the members of each group that was sent to be one transaction.
        log: the lines as they came, kept by the process that is not killed.
    """

    members: dict[str, Member] = field(default_factory=dict)
    groups: list[list[str]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def note(self, line: str) -> None:
        """Take in one line of the writer: `sent`, `acknowledged`, `delete_sent` or `delete_acknowledged`."""
        self.log.append(line)
        said = json.loads(line)
        if "sent" in said:
            for id, rows in said["sent"].items():
                self.members[id] = Member({int(seq): text for seq, text in rows.items()})
            if said["whole"]:
                self.groups.append(list(said["sent"]))
        for id in said.get("acknowledged", ()):
            self.members[id].acknowledged = True
        for id in said.get("delete_sent", ()):
            self.members[id].delete_sent = True
        for id in said.get("delete_acknowledged", ()):
            self.members[id].delete_acknowledged = True

    @property
    def acknowledged(self) -> int:
        """Members that were acknowledged."""
        return sum(member.acknowledged for member in self.members.values())

    def faults(self, present: dict[int, str]) -> list[str]:
        """Return every broken promise, given the rows that are there."""
        found = []
        sent = {seq: text for member in self.members.values() for seq, text in member.rows.items()}
        for seq, text in present.items():
            if seq not in sent:
                found.append(f"row {seq} was never sent")
            elif sent[seq] != text:
                found.append(f"row {seq} is {text!r}, sent was {sent[seq]!r}")
        for id, member in self.members.items():
            here = member.rows.keys() & present.keys()
            if 0 < len(here) < len(member.rows):
                found.append(f"of member {id} only {sorted(here)} are there")
            if member.acknowledged and not member.delete_sent and not here:
                found.append(f"member {id} was acknowledged and is not there")
            if member.delete_acknowledged and here:
                found.append(f"the deletion of member {id} was acknowledged and it is there")
        for group in self.groups:
            kept = [id for id in group if not self.members[id].delete_sent]
            here = [id for id in kept if self.members[id].rows.keys() & present.keys()]
            if 0 < len(here) < len(kept):
                found.append(f"of group {kept} only {here} are there")
        return found
