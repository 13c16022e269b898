"""The program that makes one small picture, in a process of its own: picture in at stdin, small picture out at stdout.

Decoding is where hostile pictures do harm, and nothing within a process can stop it: here the kernel does, after so much
time or memory. It is started by its path, with the standard library and Pillow alone.
"""

from __future__ import annotations

import contextlib
import io
import resource
import sys
from typing import Final

SIDE: Final = 320  # pixels, at most
MAX_PIXELS: Final = 40_000_000  # of the picture: 160 MB while it is decoded
CPU_S: Final = 5  # for all of it; an ordinary picture takes a few tenths
MEMORY_BYTES: Final = 1 << 30  # of addresses: the picture itself, what it is decoded from, and the libraries
NO_PICTURE: Final = 1  # exit status


def confine(cpu_s: int) -> None:
    """Give up time and memory beyond the bounds, and all writing of files."""
    limits = {
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
    }
    for limit, most in limits.items():
        with contextlib.suppress(ValueError, OSError):  # some systems do not know all of them
            resource.setrlimit(limit, (most, most))


def shrunk(data: bytes, image_format: str) -> bytes | None:
    """The small picture, as WebP; a picture that cannot be decoded has none."""
    from PIL import Image, ImageOps  # noqa: PLC0415 - only after the bounds are set

    # What Pillow raises for broken pictures, SyntaxError among it, and what it warns of where warnings are errors.
    broken = (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        MemoryError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    )
    try:
        with Image.open(io.BytesIO(data), formats=(image_format,)) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                return None
            picture.draft("RGB", (SIDE, SIDE))
            small = ImageOps.exif_transpose(picture)
            small.thumbnail((SIDE, SIDE))
            out = io.BytesIO()
            small.convert("RGBA" if small.mode in {"RGBA", "LA", "P", "PA"} else "RGB").save(out, "WEBP", quality=80)
    except broken:
        return None
    return out.getvalue()


def main() -> int:
    """Shrink what comes; the arguments are Pillow's name of the format, and the seconds of processor time."""
    confine(int(sys.argv[2]))
    made = shrunk(sys.stdin.buffer.read(), sys.argv[1])
    if made is None:
        return NO_PICTURE
    sys.stdout.buffer.write(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
