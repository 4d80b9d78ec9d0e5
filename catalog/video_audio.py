"""Decodes video frames and audio waveforms; unreadable files raise `BrokenFileError`.

Animated images are read by Pillow; everything else by PyAV (`pip install av`), which includes FFmpeg
and is imported only when a catalog has video or audio files.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catalog.errors import BrokenFileError, VitrineError
from catalog.images import Resize, check_pixel_count, read_with_retries, to_rgb

ANIMATED = {".gif", ".webp", ".png", ".apng"}
SUFFIXES = {
    *(".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v"),
    *(".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac"),
}
"""File name extensions of video and audio files."""


def read_video_frames(path: str | Path, frames: int, resize: Resize) -> NDArray[np.uint8]:
    """`frames` evenly spaced frames of a video, each resized by `resize`: uint8 (frames, …).

    A video with fewer frames repeats some. Raises BrokenFileError.
    """
    return read_with_retries(path, lambda: _decode_frames(Path(path), frames, resize))


def read_audio(path: str | Path, rate: int, samples: int) -> NDArray[np.float32]:
    """The beginning of an audio file: mono at `rate` samples a second, −1 … 1, float32 (samples,).

    A shorter one is padded with silence. Raises BrokenFileError.
    """
    return read_with_retries(path, lambda: _decode_audio(Path(path), rate, samples))


def _decode_frames(path: Path, frames: int, resize: Resize) -> NDArray[np.uint8]:
    if path.suffix.lower() in ANIMATED:
        with Image.open(path) as video:
            check_pixel_count(*video.size)
            places = _spread(getattr(video, "n_frames", 1), frames)
            decoded = {}
            for place in sorted(set(places)):
                video.seek(place)
                decoded[place] = resize(to_rgb(video.copy()))
            return np.stack([decoded[place] for place in places])
    with _av().open(str(path)) as video:
        stream = video.streams.video[0]
        check_pixel_count(stream.width, stream.height)
        # Containers often do not say how many frames they hold: count, then decode the ones needed.
        count = stream.frames or sum(1 for _ in video.decode(stream))
        places = _spread(count, frames)
        video.seek(0)
        decoded, needed = {}, set(places)
        for place, frame in enumerate(video.decode(stream)):
            if place in needed:
                decoded[place] = resize(to_rgb(frame.to_image()))
            if len(decoded) == len(needed):
                break
        if not decoded:
            raise BrokenFileError("no frame can be read")
        last = max(decoded)
        return np.stack([decoded.get(place, decoded[last]) for place in places])


def _decode_audio(path: Path, rate: int, samples: int) -> NDArray[np.float32]:
    av = _av()
    with av.open(str(path)) as audio:
        if not audio.streams.audio:
            raise BrokenFileError("there is no audio stream in it")
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        parts: list[NDArray[np.float32]] = []
        num_samples = 0
        for frame in audio.decode(audio.streams.audio[0]):
            for part in resampler.resample(frame):
                parts.append(part.to_ndarray()[0])
                num_samples += len(parts[-1])
            if num_samples >= samples:
                break
        else:
            parts += [part.to_ndarray()[0] for part in resampler.resample(None)]
    if not parts:
        raise BrokenFileError("no audio can be read")
    wave = np.concatenate(parts)[:samples].clip(-1, 1)
    if not np.isfinite(wave).all():
        raise BrokenFileError("the waveform is not finite")
    return np.pad(wave, (0, samples - len(wave)))


def _spread(count: int, num: int) -> list[int]:
    """The middles of `num` equal parts of `count` frames."""
    return [int((2 * place + 1) * count / (2 * num)) for place in range(num)]


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise VitrineError(
            "video and audio are read by PyAV, which is not installed: pip install av"
        ) from error
    return av
