"""Plans: the fastest way to run a model on the devices there are, or why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from ..gguf import Layout
from ._calibration import Calibration
from ._costs import Costs
from ._law import Law
from ._plan import Considered, Plan, Refused, Share
from ._predict import predicted
from ._prediction import Prediction
from ._search import Found, Lost, Outcome, Search, sets_of
from ._text import size_text, time_text
from ._wants import Device, Solo, Wants

# What a plan spells out of what it did not take.
MAX_CONSIDERED: Final = 24


def plan(
    layout: Layout,
    devices: Sequence[Device],
    wants: Wants,
    solos: Sequence[Solo] = (),
    calibration: Calibration | None = None,
) -> Plan | Refused:
    """The fastest plan for the mix of *wants*, or why there is none.

    Few devices rather than many, since each worker costs a round trip for every token; the fastest
    of all sets, orders and cuts that fit, on the head's own devices alone where that is fastest. A
    plan that a peer which has the model whole would beat is refused with both numbers, unless it is
    forced.

    Args:
      layout: The model.
      devices: What may hold layers. With the head's processor among them (`HEAD_CPU`) the output
        may lie there, even where `Wants.device` keeps layers off it.
      wants: The mix, the context, and the user's wishes, which are honoured or refused.
      solos: Peers that have the model whole and could serve.
      calibration: What was learned of earlier predictions.

    Raises:
      ConfigurationError: if a type of the cache is not one that llama.cpp knows.
      ValueError: if two devices have one id.

    """
    ids = [one.id for one in devices]
    if len(set(ids)) < len(ids):
        raise ValueError(f"devices are {sorted(ids)}: each needs an id of its own")
    return _Planning(layout, devices, wants, solos, calibration or Calibration()).outcome()


class _Planning:
    def __init__(
        self,
        layout: Layout,
        devices: Sequence[Device],
        wants: Wants,
        solos: Sequence[Solo],
        calibration: Calibration,
    ) -> None:
        self._wants = wants
        self._law = Law(Costs(layout, devices, wants, calibration))
        self._search = Search(self._law)
        self._usable = [i for i, one in enumerate(devices) if wants.allows(one)]
        self._solos = sorted(solos, key=lambda one: one.seconds(wants.mix))
        self._account = _Account(self._law, self._search, self._solos)

    def outcome(self) -> Plan | Refused:
        refused = self._no_devices() or self._too_few_workers()
        if refused is not None:
            return refused
        if self._wants.tensor_split is not None:
            return self._as_wished(self._wants.tensor_split)
        outcome = self._searched(self._wants.min_workers)
        if self._wants.is_forced and not self._wants.min_workers:
            # The head alone is no split: it is what is left where no split fits.
            split = self._searched(1)
            outcome = split if split.found else outcome
        if not outcome.found:
            return self._does_not_fit(outcome)
        return self._judged(outcome)

    def _searched(self, min_workers: int) -> Outcome:
        return self._search.run(sets_of(self._law, self._usable, min_workers=min_workers))

    # -- the best of all ----------------------------------------------------------------------

    def _judged(self, outcome: Outcome) -> Plan | Refused:
        best = outcome.found[0]
        prediction = self._account.prediction(best)
        solo = self._solos[0] if self._solos else None
        seconds = None if solo is None else solo.seconds(self._wants.mix)
        is_split = any(self._law.costs.devices[span[0]].is_remote for span in best.spans)
        if (
            solo is not None
            and seconds is not None
            and is_split
            and seconds < best.seconds
            and not self._wants.is_forced
        ):
            considered, left_out = self._account.rows(outcome, seconds, solo.peer)
            return Refused(
                word="solo_is_faster",
                reason=f"a split takes {time_text(best.seconds)} for the usual request, and "
                f"{solo.peer} alone {time_text(seconds)}; with --force it is split all the same",
                split_seconds=best.seconds,
                solo_seconds=seconds,
                solo=solo,
                considered=considered,
                left_out=left_out,
            )
        considered, left_out = self._account.rows(outcome, best.seconds, "the plan")
        return Plan(
            shares=self._shares(best),
            output_on_head=best.output_on_head,
            is_tied=self._law.costs.layout.is_tied,
            micro_batch=best.micro_batch,
            slots=best.slots,
            context_tokens=self._wants.context_tokens,
            speculation=best.speculation,
            prediction=prediction,
            considered=considered,
            left_out=left_out,
        )

    def _shares(self, found: Found) -> tuple[Share, ...]:
        room = self._search.room(found.slots, found.micro_batch)
        shares = []
        for span in found.spans:
            device, begin, end = span
            has_output = span is found.spans[-1] and not found.output_on_head
            one = self._law.costs.devices[device]
            output = 0
            if has_output:
                tied = self._law.costs.layout.tied_matrix if one.is_head_cpu else 0
                output = self._law.costs.layout.output - tied
            shares.append(
                Share(
                    device=one.id,
                    holder=one.holder,
                    layers=range(begin, end),
                    weights=room.weights[end] - room.weights[begin] + output,
                    kv=room.cache[end] - room.cache[begin],
                    memory=room.taken(
                        device,
                        begin,
                        end,
                        has_output=has_output,
                        output_on_head=found.output_on_head,
                    ),
                    has_output=has_output,
                )
            )
        return tuple(shares)

    # -- refusals -----------------------------------------------------------------------------

    def _no_devices(self) -> Refused | None:
        if self._usable:
            return None
        return Refused(
            word="no_device",
            reason=f"of {len(self._law.costs.devices)} devices the wishes leave none that may hold "
            "layers",
            needed=1,
            had=0,
        )

    def _too_few_workers(self) -> Refused | None:
        devices = self._law.costs.devices
        workers = {devices[each].holder for each in self._usable if devices[each].is_remote}
        if len(workers) >= self._wants.min_workers:
            return None
        return Refused(
            word="too_few_workers",
            reason=f"{self._wants.min_workers} workers are wanted, and {len(workers)} may be used",
            needed=self._wants.min_workers,
            had=len(workers),
        )

    def _does_not_fit(self, outcome: Outcome) -> Refused:
        needed, had = self._account.needed(), self._account.had(self._usable)
        solo = self._solos[0] if self._solos else None
        seconds = None if solo is None else solo.seconds(self._wants.mix)
        winner = "nothing" if solo is None else solo.peer
        considered, left_out = self._account.rows(outcome, seconds or 0.0, winner)
        return Refused(
            word="does_not_fit",
            reason=f"all devices together have {self._account.lack(self._usable)}",
            solo=solo,
            solo_seconds=seconds,
            needed=needed,
            had=had,
            considered=considered,
            left_out=left_out,
        )

    # -- as wished ----------------------------------------------------------------------------

    def _as_wished(self, shares: tuple[float, ...]) -> Plan | Refused:
        devices, usable = self._law.costs.devices, self._usable
        if len(shares) != len(usable):
            return Refused(
                word="bad_split",
                reason=f"tensor_split has {len(shares)} shares, and {len(usable)} devices may be "
                f"used: {', '.join(devices[each].id for each in usable)}",
                needed=len(usable),
                had=len(shares),
            )
        # llama.cpp leaves the first layers to the head's processor.
        pairs = sorted(
            zip(usable, shares, strict=True), key=lambda pair: pair[0] != self._law.costs.head_cpu
        )
        found = self._search.cut_as_wished(pairs)
        if found is None:
            return self._wished_does_not_fit(pairs)
        return self._judged(Outcome(found=(found,), lost=()))

    def _wished_does_not_fit(self, pairs: Sequence[tuple[int, float]]) -> Refused:
        devices, room = self._law.costs.devices, self._search.least_room()
        spans = self._search.wished(pairs)
        taken = [
            room.taken(*span, has_output=span is spans[-1], output_on_head=False) for span in spans
        ]
        worst = max(
            range(len(spans)), key=lambda place: taken[place] - devices[spans[place][0]].memory
        )
        number, begin, end = spans[worst]
        device, needed = devices[number], taken[worst]
        return Refused(
            word="does_not_fit",
            reason=f"by tensor_split {device.id} holds {end - begin} layers, which take "
            f"{size_text(needed)} with their buffers, and has {size_text(device.memory)}",
            needed=needed,
            had=device.memory,
        )


class _Account:
    """What was looked at, in rows that say why."""

    def __init__(self, law: Law, search: Search, solos: Sequence[Solo]) -> None:
        self._law = law
        self._search = search
        self._solos = solos
        self._mix = law.costs.wants.mix

    def prediction(self, found: Found) -> Prediction:
        """What a way to run the model is worth."""
        return predicted(
            self._law,
            found.spans,
            output_on_head=found.output_on_head,
            micro_batch=found.micro_batch,
            slots=found.slots,
            speculation=found.speculation,
        )

    def rows(
        self, outcome: Outcome, best: float, winner: str
    ) -> tuple[tuple[Considered, ...], int]:
        """The fastest first; the one that is taken has not been removed."""
        rows = [self._tried(found, best, winner) for found in outcome.found[:MAX_CONSIDERED]]
        rows += [self._solo(solo, best, winner) for solo in self._solos[:MAX_CONSIDERED]]
        rows.sort(key=lambda one: (one.removed_by is not None, one.seconds))
        rows += [self._untried(lost, best, winner) for lost in outcome.lost[:MAX_CONSIDERED]]
        count = len(outcome.found) + len(self._solos) + len(outcome.lost)
        kept = tuple(rows[:MAX_CONSIDERED])
        return kept, count - len(kept)

    def _tried(self, found: Found, best: float, winner: str) -> Considered:
        prediction = self.prediction(found)
        row = Considered(
            devices=tuple(self._law.costs.devices[device].id for device, _, _ in found.spans),
            layers=tuple(end - begin for _, begin, end in found.spans),
            seconds=prediction.seconds,
            token=prediction.token,
            terms=prediction.terms,
        )
        if found.seconds <= best:
            return row
        name, term = max(prediction.terms.items(), key=lambda item: item[1])
        return attrs.evolve(
            row,
            removed_by="slower",
            reason=f"takes {time_text(found.seconds - best)} more than {winner}; most of its time "
            f"is {name}, {time_text(term)}",
        )

    def _solo(self, solo: Solo, best: float, winner: str) -> Considered:
        seconds, mix = solo.seconds(self._mix), self._mix
        row = Considered(
            devices=(solo.peer,),
            seconds=seconds,
            token=1.0 / solo.decode_rate,
            terms=solo.terms(mix),
            is_solo=True,
        )
        if seconds <= best and winner == solo.peer:
            return row
        if seconds < best:
            return attrs.evolve(
                row,
                removed_by="forced",
                reason=f"takes {time_text(best - seconds)} less, but the plan must be made here",
            )
        return attrs.evolve(
            row,
            removed_by="slower",
            reason=f"takes {time_text(seconds - best)} more than {winner}",
        )

    def _untried(self, lost: Lost, best: float, winner: str) -> Considered:
        names = tuple(self._law.costs.devices[each].id for each in lost.devices)
        if lost.is_too_small:
            return Considered(
                devices=names, removed_by="memory", reason=f"has {self.lack(lost.devices)}"
            )
        return Considered(
            devices=names,
            removed_by="bound",
            reason=f"takes {time_text(lost.bound)} at least, and {winner} {time_text(best)}",
        )

    def lack(self, devices: Sequence[int]) -> str:
        """What devices have, and what is needed, in words."""
        needed, had = self.needed(), self.had(devices)
        if had < needed:
            return f"{size_text(had)} for layers and contexts, which take {size_text(needed)}"
        return (
            f"{size_text(had)} for layers and contexts, which take {size_text(needed)}, but no cut "
            "into whole layers leaves place for buffers and the output"
        )

    def needed(self) -> int:
        """Bytes of layers and contexts."""
        return self._search.least_room().total

    def had(self, devices: Sequence[int]) -> int:
        """Bytes that devices have for them, at most."""
        return sum(self._search.capacity(each) for each in devices)
