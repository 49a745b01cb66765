"""Answers of a stream on their way to the caller."""

from collections import deque

from maskwire.v1 import decoder_pb2 as pb


class Outbox:
    """Has answers until they are sent, and counts the masks that were sent and that the caller has seen.

    Attributes:
        unsent_bytes: Size of the answers without masks that are not sent yet.
        has_mask: Whether a mask is not sent yet.
    """

    def __init__(self) -> None:
        self._waiting: deque[pb.SegmentStreamResponse] = deque()
        self.unsent_bytes = 0
        self._unsent_masks = 0
        self._masks_sent = 0
        self._masks_seen: int | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def has_mask(self) -> bool:
        return self._unsent_masks > 0

    @property
    def names_bytes(self) -> int:
        """Size of the request IDs of the answers that wait."""
        return sum(len(response.request_id) for response in self._waiting)

    @property
    def unseen(self) -> int:
        """How many masks the caller has not seen; 0 if it does not say what it has seen."""
        return 0 if self._masks_seen is None else self._masks_sent - self._masks_seen

    def put(self, response: pb.SegmentStreamResponse) -> None:
        """Puts an answer behind the others."""
        if response.HasField("result"):
            self._unsent_masks += 1
            self._masks_sent += 1
        else:
            self.unsent_bytes += response.ByteSize()
        self._waiting.append(response)

    def pop(self) -> pb.SegmentStreamResponse:
        """Returns the next answer. It counts as not sent until `sent` is told of it."""
        return self._waiting.popleft()

    def sent(self, response: pb.SegmentStreamResponse) -> None:
        """Notes that an answer has left."""
        if response.HasField("result"):
            self._unsent_masks -= 1
        else:
            self.unsent_bytes -= response.ByteSize()

    def acknowledge(self, masks_seen: int) -> bool:
        """Notes how many masks the caller has seen. Returns whether that is news: each mask, whose request was charged,
        is news at most once."""
        before = self._masks_seen or 0
        self._masks_seen = max(before, masks_seen)
        return before < masks_seen <= self._masks_sent
