"""What a new stream is told, so that it goes on where another one ended."""

from dataclasses import dataclass, field

from maskwire.v1 import decoder_pb2 as pb


@dataclass
class History:
    """What led to an object: the changes in order, and how many of them, from the last, were taken back."""

    steps: list[pb.EditObject] = field(default_factory=list)
    undone: int = 0

    def record(self, edit: pb.EditObject) -> None:
        match edit.WhichOneof("change"):
            case "undo":
                self.undone += 1
            case "redo":
                self.undone -= 1
            case _:
                del self.steps[len(self.steps) - self.undone :]
                self.steps.append(edit)
                self.undone = 0


class Replay:
    """The image of a session, and its objects with their histories, as the answers show them.

    Args:
        set_image: The image that the first stream begins with.

    Attributes:
        set_image: The image, by its content key once a stream has answered.
        image: Its name, size and model.
        histories: By the objects' names.
    """

    def __init__(self, set_image: pb.SetImage) -> None:
        self.set_image = set_image
        self.image = pb.SegmentedImage()
        self.histories: dict[str, History] = {}

    def opening(self) -> list[pb.SegmentStreamRequest]:
        """The requests that a new stream begins with."""
        restored = [
            pb.RestoreObject(object_id=object_id, steps=history.steps, undone=history.undone)
            for object_id, history in self.histories.items()
        ]
        return [
            pb.SegmentStreamRequest(set_image=self.set_image),
            *(pb.SegmentStreamRequest(restore=message) for message in restored),
        ]

    def note(self, request: pb.SegmentStreamRequest, response: pb.SegmentStreamResponse) -> None:
        """Takes in what an answer, which is no error, has changed."""
        match response.WhichOneof("outcome"):
            case "image_ready":
                self.image = response.image_ready.image
                if request.request_id:  # not the one that a new stream begins with
                    self.histories.clear()
                self.set_image = request.set_image
                self.set_image.content_key = self.image.content_key  # it stays with it, whatever the name means
            case "object" if request.HasField("restore"):
                restored = request.restore
                self.histories[restored.object_id] = History(list(restored.steps), restored.undone)
            case "object" if request.edit.WhichOneof("change") == "remove":
                self.histories.pop(response.object.object_id, None)
            case "object" if not request.speculative:
                self.histories.setdefault(response.object.object_id, History()).record(request.edit)
