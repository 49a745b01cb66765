"""The frames of a clip in a form of any length, whose parts are passed on as they come."""

from collections.abc import AsyncGenerator

from maskwire.suggest import shortened
from maskwire.v1 import tracker_pb2 as pb
from maskwire_core.http.problems import Problem

from maskwire_gateway.rest.form_parts import FormParts, boundary_of


class FrameForm:
    """Reads multipart/form-data whose parts, all named "frame", are the files of frames in their order.

    Args:
        content_type: The request's header.

    Raises:
        Problem: UNSUPPORTED_MEDIA_TYPE: it is something else.
    """

    def __init__(self, content_type: str) -> None:
        boundary = boundary_of(content_type)
        if not boundary:
            raise Problem(
                415,
                'send the frames as multipart/form-data, each as a part named "frame": curl -F frame=@0.jpg ...',
                "UNSUPPORTED_MEDIA_TYPE",
                "content-type",
            )
        self._form = FormParts(boundary)

    async def parts(self, body: AsyncGenerator[bytes, None]) -> AsyncGenerator[pb.FramePart, None]:
        """Yields the parts of the frames' files, those of a chunk of the body when it has come.

        Raises:
            Problem: BAD_FORM: the form is malformed. BAD_PARAMETER: a part has another name.
        """
        async for chunk in body:
            for piece in self._form.read(chunk):
                if piece.name != "frame":
                    name = shortened(piece.name)
                    raise Problem(400, f"a part is named {name!r}; name all of them 'frame'", "BAD_PARAMETER", name)
                yield pb.FramePart(chunk=piece.data, last=piece.is_last)
        self._form.end()
