"""The progress bar of a job."""

from __future__ import annotations

MISSING = (
    "progress=True shows a bar of tqdm, which is not installed: pip install 'zstreamer[progress]', "
    "or leave progress out"
)


class Progress:
    """A bar on standard error.

    Args:
        total: how many items there are in the whole, None where that is not known.
        start: how many were done before.

    Raises:
        ModuleNotFoundError: tqdm is not installed.
    """

    def __init__(self, total: int | None, start: int) -> None:
        try:
            from tqdm import tqdm
        except ModuleNotFoundError:
            raise ModuleNotFoundError(MISSING, name="tqdm") from None
        self._bar = tqdm(total=total, initial=start, unit=" items", dynamic_ncols=True)
        self._done = start
        self._failed = 0

    def show(self, done: int, failed: int) -> None:
        """Show that so many items are done, from the first one of the whole, some with errors."""
        if failed != self._failed:
            self._failed = failed
            self._bar.set_postfix(failed=failed, refresh=False)
        self._bar.update(done - self._done)
        self._done = done

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
