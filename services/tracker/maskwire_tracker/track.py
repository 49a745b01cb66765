"""Follows objects through frames, step by step as `sam2.sam2_video_predictor.SAM2VideoPredictor` (sam2 1.1.0) does.

A track keeps what sam2 keeps and nothing else, so that its objects are all that another worker needs to go on. The
caller prepares frames, one at a time; what all objects share on a frame is computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from maskwire_tracker.masks import given_masks, with_holes_filled
from maskwire_tracker.options import TrackOptions
from maskwire_tracker.predictor import Frame, TrackerPredictor
from maskwire_tracker.remembered import Points, Remembered, TrackedObject
from maskwire_tracker.selection import Recalled, recall

BOX_LABELS = (2, 3)
"""Labels of the corners of a box, in sam2's prompt encoder."""


@dataclass
class Track:
    """Objects that are followed through one video.

    Args:
        predictor: The model.
        width: Width of the frames in pixels.
        height: Height of the frames in pixels.
        options: How objects are followed.
        frames: Number of frames; None for a live stream, whose end is not known.
        objects: The objects so far, by name, in the order in which they came.
    """

    predictor: TrackerPredictor
    width: int
    height: int
    options: TrackOptions = field(default_factory=TrackOptions)
    frames: int | None = None
    objects: dict[str, TrackedObject] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes that the track's objects take in memory."""
        return sum(
            seen.size
            for each in self.objects.values()
            for kept in (each.prompted, each.followed, each.new_prompted, each.new_followed)
            for seen in kept.values()
        )

    def add_points(
        self,
        frame: Frame,
        name: str,
        points: Sequence[tuple[float, float]] = (),
        labels: Sequence[int] = (),
        box: Sequence[float] | None = None,
        clear_old_points: bool = True,
    ) -> Remembered:
        """Prompts an object on a frame (add_new_points_or_box).

        Args:
            frame: The frame.
            name: The object's name; a new one makes a new object.
            points: x and y of points, in pixels of the frame.
            labels: 1 for each point inside the object, 0 for one outside.
            box: x and y of two opposite corners of a box around the object, in pixels of the frame.
            clear_old_points: Whether the points replace those that the object has on this frame, or are added to them.

        Returns:
            The object on this frame.

        Raises:
            ValueError: There is neither a point nor a box, their numbers differ, or a box is added to points.
        """
        if len(points) != len(labels):
            raise ValueError(f"{len(points)} points have {len(labels)} labels; give one for each")
        if not len(points) and box is None:
            raise ValueError("there is neither a point nor a box")
        if box is not None and not clear_old_points:
            raise ValueError("a box cannot be added to points; it replaces them (clear_old_points)")
        tracked = self.objects.setdefault(name, TrackedObject())
        asked = self._points(points, labels, box)
        if not clear_old_points and frame.index in tracked.points:
            asked = tracked.points[frame.index].with_more(asked)
        tracked.points[frame.index] = asked
        fresh, first = self._fresh(tracked, frame.index)
        before = fresh.get(frame.index) or tracked.prompted.get(frame.index) or tracked.followed.get(frame.index)
        recalled = None if first else self._recall(tracked, frame.index, tracked.backwards[frame.index])
        seen = self.predictor.decode(frame, recalled, asked, None if before is None else before.logits)
        fresh[frame.index] = self._kept(seen)
        return fresh[frame.index]

    def add_mask(self, frame: Frame, name: str, mask: NDArray[np.bool_]) -> Remembered:
        """Sets an object's mask on a frame, which is taken as it is (add_new_mask).

        Args:
            frame: The frame.
            name: The object's name; a new one makes a new object.
            mask: The mask, height x width; another size than the frame's is stretched.

        Returns:
            The object on this frame.
        """
        tracked = self.objects.setdefault(name, TrackedObject())
        tracked.points.pop(frame.index, None)
        fresh, _ = self._fresh(tracked, frame.index)
        whole, low = given_masks(mask, self.predictor.config.decoder.image_size)
        fresh[frame.index] = self._kept(self.predictor.take(frame, whole, low))
        return fresh[frame.index]

    def clear(self, frame: int, name: str) -> None:
        """Takes an object's prompts on a frame back (clear_all_prompts_in_frame).

        Raises:
            KeyError: There is no such object.
        """
        tracked = self.objects[name]
        for prompts in (tracked.points, tracked.new_prompted, tracked.new_followed):
            prompts.pop(frame, None)
        seen = tracked.prompted.pop(frame, None)
        if seen is not None:  # its mask stays, as that of a frame that was followed
            tracked.followed[frame] = seen
            tracked.backwards.pop(frame, None)

    def remove(self, name: str) -> None:
        """Removes an object (remove_object).

        Raises:
            KeyError: There is no such object.
        """
        del self.objects[name]

    def unsettled(self) -> list[int]:
        """Returns the frames whose prompts have no memory yet, in order: `settle` must see each of them."""
        new = (each for tracked in self.objects.values() for each in (tracked.new_followed, tracked.new_prompted))
        return sorted({frame for prompts in new for frame, seen in prompts.items() if seen.memory is None})

    def settle(self, frame: Frame) -> None:
        """Computes the memories of prompts on a frame, so that other frames can recall them."""
        for tracked in self.objects.values():
            for prompts in (tracked.new_followed, tracked.new_prompted):
                seen = prompts.get(frame.index)
                if seen is not None and seen.memory is None:
                    prompts[frame.index] = replace(seen, memory=self.predictor.memorize(frame, seen, prompted=True))

    def start(self) -> int:
        """Makes prompts what other frames are conditioned on, before frames are followed
        (propagate_in_video_preflight).

        Returns:
            The earliest prompted frame.

        Raises:
            ValueError: There is no object, or an object without prompts.
            RuntimeError: `unsettled` frames are left.
        """
        if not self.objects:
            raise ValueError("there is no object to follow; prompt one on a frame first")
        if self.unsettled():
            raise RuntimeError(f"prompts on frames {self.unsettled()} have no memory")
        for name, tracked in self.objects.items():
            for new, settled in ((tracked.new_followed, tracked.followed), (tracked.new_prompted, tracked.prompted)):
                for frame, seen in new.items():
                    settled[frame] = seen
                    self._clear_around(tracked, frame)
                new.clear()
            if not tracked.prompted:
                raise ValueError(f"object {name!r} has no prompts; prompt it on a frame, or remove it")
            for frame in tracked.prompted:
                tracked.followed.pop(frame, None)
        return min(frame for tracked in self.objects.values() for frame in tracked.prompted)

    def follow(self, frame: Frame, backwards: bool = False) -> dict[str, Remembered]:
        """Finds all objects on a frame (a step of propagate_in_video, after `start`).

        Args:
            frame: The frame.
            backwards: Whether objects are followed towards the first frame.

        Returns:
            Each object on the frame, by name.
        """
        found = {}
        for name, tracked in self.objects.items():
            seen = tracked.prompted.get(frame.index)
            if seen is not None:
                self._clear_around(tracked, frame.index)
            else:
                seen = self._find(tracked, frame, backwards)
                memory = self.predictor.memorize(frame, seen, prompted=False)  # of the mask before holes are filled
                seen = tracked.followed[frame.index] = replace(self._kept(seen), memory=memory)
            tracked.backwards[frame.index] = backwards
            found[name] = seen
        return found

    def order(self, start: int, most: int | None = None, backwards: bool = False) -> range:
        """Returns the frames that are followed from `start` on, itself included, as propagate_in_video does.

        Args:
            start: Index of the first frame.
            most: Number of frames after it; None for all.
            backwards: Whether they go towards the first frame. From frame 0 there are none then.

        Raises:
            ValueError: The end of a live stream is asked for.
        """
        if backwards:
            end = 0 if most is None else max(start - most, 0)
            return range(start, end - 1, -1) if start > 0 else range(0)
        if self.frames is None:
            if most is None:
                raise ValueError("a live stream has no last frame; say how many frames to follow")
            return range(start, start + most + 1)
        last = self.frames - 1
        return range(start, (last if most is None else min(start + most, last)) + 1)

    def forget_before(self, frame: int) -> None:
        """Drops what no frame from `frame` on recalls when objects are followed forwards, so that a live stream takes
        the same memory however long it gets. Prompted frames stay."""
        config, stride = self.predictor.config, self.options.memory_temporal_stride_for_eval
        memories = max(config.memories - 1, stride * (config.memories - 2) + 1)
        for tracked in self.objects.values():
            for time in [time for time in tracked.followed if time < frame]:
                if time < frame - max(memories, config.pointers - 1):
                    del tracked.followed[time]
                    tracked.backwards.pop(time, None)
                elif time < frame - memories:
                    tracked.followed[time] = replace(tracked.followed[time], memory=None, logits=None)

    def forget_farthest(self, frame: int, most: int) -> None:
        """Drops followed frames, the farthest from `frame` first, until objects take at most `most` bytes. What the
        frames next to it recall stays."""
        config, stride = self.predictor.config, self.options.memory_temporal_stride_for_eval
        near = max(stride * (config.memories - 1), config.pointers)
        far = sorted(
            (abs(time - frame), name, time)
            for name, tracked in self.objects.items()
            for time in tracked.followed
            if abs(time - frame) > near
        )
        surplus = self.size - most
        while far and surplus > 0:
            _, name, time = far.pop()
            surplus -= self.objects[name].followed.pop(time).size
            self.objects[name].backwards.pop(time, None)

    def _points(
        self, points: Sequence[tuple[float, float]], labels: Sequence[int], box: Sequence[float] | None
    ) -> Points:
        """Returns points and a box as the model takes them."""
        places = np.asarray(points, np.float32).reshape(-1, 2)
        kinds = np.asarray(labels, np.int64).reshape(-1)
        if box is not None:
            places = np.concatenate([np.asarray(box, np.float32).reshape(2, 2), places])
            kinds = np.concatenate([np.array(BOX_LABELS), kinds])
        scale = np.array([self.width, self.height], np.float32)
        return Points(places / scale * np.float32(self.predictor.config.decoder.image_size), kinds)

    def _fresh(self, tracked: TrackedObject, frame: int) -> tuple[dict[int, Remembered], bool]:
        """Returns where a prompt on a frame is kept until the object is followed, and whether the frame was not
        followed before."""
        first = frame not in tracked.backwards
        conditions = first or self.options.add_all_frames_to_correct_as_cond
        return (tracked.new_prompted if conditions else tracked.new_followed), first

    def _find(self, tracked: TrackedObject, frame: Frame, backwards: bool) -> Remembered:
        """Finds an object on a frame that was not prompted."""
        return self.predictor.decode(frame, self._recall(tracked, frame.index, backwards))

    def _recall(self, tracked: TrackedObject, frame: int, backwards: bool) -> Recalled | None:
        frames = self.predictor.config.pointers + frame if self.frames is None else self.frames
        return recall(self.predictor.config, self.options, tracked, frame, frames, backwards)

    def _kept(self, seen: Remembered) -> Remembered:
        if seen.logits is None or not seen.object_score > 0:
            return seen
        return replace(seen, logits=with_holes_filled(seen.logits, self.options.fill_hole_area))

    def _clear_around(self, tracked: TrackedObject, frame: int) -> None:
        if self.options.clear_non_cond_mem_around_input:
            reach = self.options.memory_temporal_stride_for_eval * self.predictor.config.memories
            for near in range(frame - reach, frame + reach + 1):
                tracked.followed.pop(near, None)
