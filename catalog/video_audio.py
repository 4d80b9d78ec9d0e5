"""Reads frames out of films and waves out of sounds, or says why it cannot.

Animated pictures are read by Pillow; everything else by PyAV (`pip install av`), which
brings FFmpeg along and is imported only when a catalog has films or sounds.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catalog.errors import BrokenFileError, VitrineError
from catalog.images import check_pixel_count, fit_image, read_with_retries

ANIMATED = {".gif", ".webp", ".png", ".apng"}
SUFFIXES = {
    *(".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v"),
    *(".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac"),
}
"""How films' and sounds' files are called."""


def read_video_frames(path: str | Path, frames: int, size: int) -> NDArray[np.uint8]:
    """`frames` pictures from evenly spaced moments, uint8 (frames, size, size, 3).

    Of a film with fewer, some are given twice. Raises BrokenFileError.
    """
    return read_with_retries(path, lambda: _frames(Path(path), frames, size))


def read_audio(path: str | Path, rate: int, samples: int) -> NDArray[np.float32]:
    """The beginning of a sound: one channel at `rate` samples a second, −1 … 1, float32 (samples,).

    A shorter one is followed by silence. Raises BrokenFileError.
    """
    return read_with_retries(path, lambda: _sound(Path(path), rate, samples))


def _frames(path: Path, frames: int, size: int) -> NDArray[np.uint8]:
    if path.suffix.lower() in ANIMATED:
        with Image.open(path) as film:
            check_pixel_count(*film.size)
            places = _spread(getattr(film, "n_frames", 1), frames)
            found = {}
            for place in sorted(set(places)):
                film.seek(place)
                found[place] = fit_image(film.copy(), size)
            return np.stack([found[place] for place in places])
    with _av().open(str(path)) as film:
        stream = film.streams.video[0]
        check_pixel_count(stream.width, stream.height)
        # Containers often do not say how many frames they hold: count, then read those wanted.
        count = stream.frames or sum(1 for _ in film.decode(stream))
        places = _spread(count, frames)
        film.seek(0)
        found, wanted = {}, set(places)
        for place, frame in enumerate(film.decode(stream)):
            if place in wanted:
                found[place] = fit_image(frame.to_image(), size)
            if len(found) == len(wanted):
                break
        if not found:
            raise BrokenFileError("no frame can be read")
        last = max(found)
        return np.stack([found.get(place, found[last]) for place in places])


def _sound(path: Path, rate: int, samples: int) -> NDArray[np.float32]:
    av = _av()
    with av.open(str(path)) as sound:
        if not sound.streams.audio:
            raise BrokenFileError("there is no sound in it")
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        parts: list[NDArray[np.float32]] = []
        heard = 0
        for frame in sound.decode(sound.streams.audio[0]):
            for part in resampler.resample(frame):
                parts.append(part.to_ndarray()[0])
                heard += len(parts[-1])
            if heard >= samples:
                break
        else:
            parts += [part.to_ndarray()[0] for part in resampler.resample(None)]
    if not parts:
        raise BrokenFileError("no sound can be read")
    wave = np.concatenate(parts)[:samples].clip(-1, 1)
    if not np.isfinite(wave).all():
        raise BrokenFileError("the wave is not finite")
    return np.pad(wave, (0, samples - len(wave)))


def _spread(count: int, wanted: int) -> list[int]:
    """The middles of `wanted` equal shares of `count` frames."""
    return [int((2 * place + 1) * count / (2 * wanted)) for place in range(wanted)]


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise VitrineError(
            "films and sounds are read by PyAV, which is not installed: pip install av"
        ) from error
    return av
