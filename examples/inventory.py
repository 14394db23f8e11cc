"""Keep track of what lies in a small warehouse: a file to complete in, for `make try`."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

logger = logging.getLogger(__name__)


@dataclass
class Item:
    """Something on a shelf."""

    name: str
    quantity: int = 0
    tags: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, object]:
        return {"name": self.name, "quantity": self.quantity, "tags": self.tags}


class Inventory:
    """All the items, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.items: dict[str, Item] = {}

    def add(self, name: str, quantity: int = 1) -> Item:
        if quantity < 0:
            raise ValueError("quantity must not be negative")
        item = self.items.get(name)
        if item is None:
            item = self.items[name] = Item(name)
        item.quantity += quantity
        return item

    def save(self) -> None:
        data = [item.to_dict() for item in self.items.values()]
        self.path.write_text(json.dumps(data, indent=2), encoding="utf-8")
        logger.info("saved %d items", len(data))
