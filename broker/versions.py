"""Models with several versions: whose queue an item goes to, and where it goes when that changes.

    split     new items are shared among the versions that may have them
    look      which versions may have items, now that workers or routes have changed; what waits
              for one that may not goes to those that may

An item is at one version at a time: what a worker has stays there until it comes back. An item
that was sent for one version by name, as MODEL@VERSION, waits for that one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from zstreamer.broker import routes
from zstreamer.broker.family import BARE, Family
from zstreamer.broker.lots import Lot
from zstreamer.broker.models import Model
from zstreamer.broker.routes import AT, Route
from zstreamer.broker.shadow import Shadow
from zstreamer.wire.protocol import Run

if TYPE_CHECKING:
    from zstreamer.broker.scheduler import Scheduler


class Versions:
    """All models with versions, routes or aliases.

    Args:
        scheduler: has the models and their items.

    Attributes:
        routes: what operators have said, by name.
        aliases: names that stand for others.
        max_payload: bytes of one answer.
        plain: there are only models without versions, routes and aliases.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._families: dict[str, Family] = {}
        self.routes: Mapping[str, Route] = {}
        self.aliases: dict[str, str] = {}
        self.max_payload = 0
        self.plain = True

    def __bool__(self) -> bool:
        """Whether there is anything but plain models."""
        return not self.plain

    # Names

    def find(self, name: str) -> Model | None:
        """Return the model that a client means by a name; None where there is none."""
        return self._scheduler.models.get(self.aliases.get(name, name))

    def names(self, model: Model) -> list[str]:
        """Return the names by which clients mean this model."""
        return [model.name, *(a for a, name in self.aliases.items() if name == model.name)]

    def served_by(self, name: str, version: str) -> Model:
        """Return the model that a worker serves."""
        models = self._scheduler.models
        if not version:
            return models.named(name)
        family = self._family(name)
        family.front.known = True
        if version not in family.members:
            family.join(version, models.named(name + AT + version))
        return family.members[version]

    def _family(self, name: str) -> Family:
        if name not in self._families:
            family = self._families[name] = Family(self._scheduler.models.named(name))
            family.route = self.routes.get(name, Route())
            self._make_shadow(family)
            self.plain = False
        return self._families[name]

    # Routes

    def change(self, name: str, table: Mapping[str, object]) -> None:
        """An operator changes a name's route; what the table has not stays.

        Raises:
            RouteError: it makes no sense; nothing has changed.
        """
        route = self.routes.get(name, Route()).changed(table)
        others = {each: old for each, old in self.routes.items() if each != name}
        self.agree({**others, name: route} if route != Route() else others)

    def agree(self, found: Mapping[str, Route]) -> None:
        """These routes hold from now on, in place of all others.

        Raises:
            RouteError: they do not go together; nothing has changed.
        """
        routes.check(found)
        self.routes = found
        self.aliases = {name: r.alias for name, r in found.items() if r.alias is not None}
        for name in [*found, *self._families]:
            route = found.get(name, Route())
            if name in self._families or (route != Route() and route.alias is None):
                family = self._family(name)
                family.route = route
                self._make_shadow(family)
        self._look_if_plain()

    def _make_shadow(self, family: Family) -> None:
        route, shadow = family.route, family.shadow
        wanted = (route.shadow, route.shadow_share) if route.shadow else None
        if shadow is not None and wanted != (shadow.version, shadow.share):
            self._end_copies(shadow)
            family.shadow = shadow = None
        if shadow is None and route.shadow:
            totals = family.copies.pop(route.shadow, Counter())  # the newest is the last
            family.copies[route.shadow] = totals
            if len(family.copies) > routes.MAX_VERSIONS:
                del family.copies[next(iter(family.copies))]
            family.shadow = Shadow(route.shadow, route.shadow_share, self.max_payload, totals)

    def _end_copies(self, shadow: Shadow) -> None:
        self._scheduler.cancel(shadow, list(shadow.items))
        shadow.forget_all()

    def shadows(self) -> list[tuple[str, Counter[str], int]]:
        """Return what was counted of shadows, by name of their version, and the open copies."""
        found = []
        for name, family in list(self._families.items()):
            shadow = family.shadow
            for version, totals in list(family.copies.items()):
                copies = shadow.items if shadow is not None and shadow.version == version else ()
                found.append((name + AT + version, totals, len(copies)))
        return found

    def rows(self, name: str = "") -> dict[str, object]:
        """Return what is told of one name, or of all with versions, routes or aliases."""
        known = [*self._families, *self.aliases]
        found: dict[str, object] = {}
        for each in sorted(known) if not name else [name] if name in known else []:
            alias = self.aliases.get(each)
            found[each] = self._families[each].row() if alias is None else {"alias": alias}
        return found

    # Items

    def split(self, run: Run) -> list[tuple[Run, Family | None]]:
        """Return new items as runs for one version each, with the family that they are of."""
        name = self.aliases.get(run.model, run.model)
        if name != run.model:
            run = run._replace(model=name)
        family = self._families.get(name)
        if family is None or not run.ids:
            return [(run, family)]
        found: list[tuple[Run, Family | None]] = []
        start = 0
        for version, count in family.deal(len(run.ids)):
            end = start + count
            columns = run.ids[start:end], run.budgets[start:end], run.slots[start:end]
            model = family.members[version].name
            found.append((Run(model, run.priority, run.flags, run.lane, *columns), family))
            start = end
        return found or [(run, family)]

    def shadow(self, now: float, lot: Lot) -> None:
        """Have items that were admitted copied where their family has a shadow."""
        family = lot.family
        if family is None or family.shadow is None:
            return
        model = family.members.get(family.shadow.version)
        for copy in family.shadow.copy(now, lot, model):
            copy.model.tally.admitted += len(copy.ids)
            copy.model.tally.bytes_in += copy.size
            self._scheduler.enqueue(copy)

    # What changes

    def look(self, families: Iterable[Family] | None = None) -> list[Model]:
        """Find out who may have items now; return the fronts whose clients are to be told.

        Args:
            families: those of which something may have changed; all where None.
        """
        news = []
        for family in list(self._families.values()) if families is None else families:
            if family.look():
                for member in family.members.values():
                    self._scheduler.touch(member)
            self._move(family)
            shadow = family.shadow
            if shadow is not None and shadow.items:
                model = family.members.get(shadow.version)
                if model is None or not model.warm:
                    self._end_copies(shadow)
            said = family.front.state_in_words()
            if said != family.said:
                family.said = said
                news.append(family.front)
        return news

    def forget_idle(self) -> None:
        """Forget versions whose model has been forgotten, and families of one."""
        models = self._scheduler.models
        for name, family in list(self._families.items()):
            for version, model in list(family.members.items()):
                if models.get(model.name) is not model and version != BARE:
                    family.leave(version)
            if not (family.needed or family.front.waiting):
                family.front.family = None
                del self._families[name]
        self._look_if_plain()

    def _look_if_plain(self) -> None:
        self.plain = not (self._families or self.aliases)

    def _move(self, family: Family) -> None:
        """Have what waits for a version that may have nothing wait for one that may."""
        for version, model in list(family.members.items()):
            if version in family.shares.parts or not model.waiting:
                continue
            if not family.shares and not (model.broken and version):
                continue
            for lot in model.queue.drain():
                if not _may_move(lot, family):
                    model.queue.push(lot)
                    continue
                for target, part in self._parts(family, lot):
                    part.model = target
                    target.queue.push(part)
                    self._scheduler.touch(target)
            self._move_suspects(family, model)

    def _parts(self, family: Family, lot: Lot) -> list[tuple[Model, Lot]]:
        found = []
        for version, count in family.deal(len(lot.ids)) or [(BARE, len(lot.ids))]:
            part = lot if count == len(lot.ids) else lot.take(count)
            found.append((family.members[version], part))
        return found

    def _move_suspects(self, family: Family, model: Model) -> None:
        groups = list(model.suspects)
        model.suspects.clear()
        for group in groups:
            stay = [lot for lot in group if lot.ids and not _may_move(lot, family)]
            go = [lot for lot in group if lot.ids and lot not in stay]
            if stay:
                model.suspects.append(stay)
            if go:
                version = (family.deal(1) or [(BARE, 1)])[0][0]
                target = family.members[version]
                for lot in go:
                    lot.model = target
                target.suspects.append(go)
                self._scheduler.touch(target)


def _may_move(lot: Lot, family: Family) -> bool:
    """Whether any version may have these; what came before there were versions is told so here."""
    if lot.model is family.front:
        lot.family = family
    return lot.family is family
