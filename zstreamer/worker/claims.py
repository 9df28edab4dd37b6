"""Which plans a model's process has claimed, in memory that it shares with its agent.

    child   note(serial) ──> one page of memory <── news() agent

Said through the channel, each claim would cost the child a system call before its batch can run,
and would wake the agent for what it can learn when it next wakes. The page outlives the
child: whatever became of it, the agent reads what had begun.
"""

from __future__ import annotations

import mmap
import os

from zstreamer.worker.handover import anonymous

PAGE = 4096
PLACES = PAGE // 8 - 1
"""Claims that the page holds. The agent looks before each plan it sends, so few are ever unseen."""


class Claims:
    """Either end of the page; the agent makes it, the child opens it by its descriptor.

    Attributes:
        fd: the descriptor; the receiver may close it once it has opened the page.
    """

    def __init__(self, fd: int | None = None) -> None:
        self.fd = anonymous("claims", PAGE) if fd is None else fd
        self._page = mmap.mmap(self.fd, PAGE)
        # Word 0 counts the claims, the others hold the latest of them, each written as a whole.
        self._words = memoryview(self._page).cast("Q")
        self._seen = 0

    def note(self, serial: int) -> None:
        """The plan with this serial begins now."""
        count = self._words[0]
        self._words[1 + count % PLACES] = serial
        self._words[0] = count + 1

    def news(self) -> list[int]:
        """Return the serials that were noted since the last time, in order."""
        start, self._seen = self._seen, self._words[0]
        return [self._words[1 + number % PLACES] for number in range(start, self._seen)]

    def close(self) -> None:
        """Let the page go."""
        self._words.release()
        self._page.close()
        os.close(self.fd)
