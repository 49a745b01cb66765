"""Prompts that are answered in a region of their image, which an encoder cuts from the image's kept file."""

from collections.abc import Sequence
from typing import Literal

from maskwire import InvalidRequest, MaskwireError
from maskwire.regions import Place, box_of, choose_regions
from maskwire.transport import Caller, Servers
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import encoder_pb2, types_pb2


async def segment_in_region(
    servers: Servers, request: pb.SegmentRequest, region: Literal["auto"] | Place, caller: Caller
) -> pb.SegmentResponse:
    """Answers prompts in a region of their image.

    Args:
        servers: Encoders and decoders.
        request: The prompts, which the answer changes.
        region: The region, or "auto" for the one that the client's rule chooses for the request's only prompt.
        caller: On whose behalf.

    Raises:
        MaskwireError: As `Servers.segment`. InvalidRequest: BAD_REGION. FailedPrecondition: SOURCE_NOT_KEPT.
    """
    if region == "auto":
        _check_prompt(request)
    output, saves, loads = types_pb2.OutputOptions(), request.save_logits, request.load_logits
    output.CopyFrom(request.output)
    looks = types_pb2.OutputOptions()  # the best mask as run lengths
    if output.HasField("multimask"):
        looks.multimask = output.multimask
    request.output.CopyFrom(looks)
    request.save_logits = request.load_logits = False
    # The image as a whole: says which one it is, and whether its prompts are right.
    image = (await servers.segment(request, caller)).image
    if image.HasField("region"):
        raise InvalidRequest("content_key is that of a region; give the whole image's, or none", "BAD_REGION", "region")
    request.wait_ms = 0
    content_keys: dict[Place | None, str] = {None: image.content_key}

    async def answer_in(place: Place | None) -> pb.SegmentResponse:
        if place not in content_keys:
            assert place is not None
            content_keys[place] = await _embed(servers, request, image, place, caller)
        request.content_key = content_keys[place]
        return await servers.segment(request, caller)

    async def look(place: Place, _: Sequence[types_pb2.Prompt]) -> list[Place]:
        return [box_of(each.masks[0].rle) for each in (await answer_in(place)).results]

    chosen: Place | None
    if region == "auto":
        (chosen,) = await choose_regions(
            request.prompts or [types_pb2.Prompt()], (image.width_px, image.height_px), look
        )
    else:
        chosen = region
    request.output.CopyFrom(output)
    request.save_logits, request.load_logits = saves, loads
    return await answer_in(chosen)


def _check_prompt(request: pb.SegmentRequest) -> None:
    """Raises BAD_REGION unless a request has one prompt, for which a region can be chosen."""
    if len(request.prompts) > 1:
        said = "'auto' chooses a region for one prompt; send each in a request of its own, or give a box as the region"
    elif any(prompt.steps for prompt in request.prompts):
        said = "'auto' is for points, a box or a mask; give a box as the region of steps, whose logits are the region's"
    else:
        return
    raise InvalidRequest(said, "BAD_REGION", "region")


async def _embed(
    servers: Servers, request: pb.SegmentRequest, image: pb.SegmentedImage, place: Place, caller: Caller
) -> str:
    """Has a region embedded from the image's kept file, unless it is stored. Returns its content key."""
    left, top, right, bottom = place
    header = encoder_pb2.EncodeImageHeader(
        image_id=image.image_id,
        namespace=request.namespace,
        model=image.model,
        region=types_pb2.Box(x_min_px=left, y_min_px=top, x_max_px=right, y_max_px=bottom),
        region_of=image.content_key,
        from_source=True,
    )
    try:
        return (await servers.encode_image(header, b"", caller)).image.content_key
    except MaskwireError as error:
        if error.field.startswith("header."):
            error.field = "region"
        raise
